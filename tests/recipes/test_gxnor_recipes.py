"""What the recipes of GXNOR-Net promise beyond every recipe's promises."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bnn.cli import main
from bnn.errors import Interrupted
from bnn.optim.dst import DST
from bnn.training import Run, Trainer
from bnn.training.directory import read_json
from bnn.training.recipe import load_recipe
from bnn.weights import DiscreteStore
from tests.training.tiny_runs import SignalAt, assert_same_state, training_state

RECIPES = Path(__file__).parents[2] / "recipes"


def write_mnist(folder: Path, images: int = 40) -> None:
    """Images of noise, brighter for higher digits."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train", images), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = random.integers(0, 100, (count, 28, 28)) + 15 * labels[:, None, None]
        sizes = np.array([count, 28, 28], ">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels.astype(np.uint8).tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels.tobytes())


def test_mnist_builds_what_it_says(tmp_path):
    write_mnist(tmp_path)
    recipe = load_recipe(RECIPES / "mnist_gxnor.py").function
    run = recipe(data_dir=tmp_path, learning_rate=0.02, m=None, shift=0.1, seed=4)
    assert isinstance(run.optimizer, DST)
    assert run.optimizer.param_groups[0]["m"] is None
    assert run.optimizer.param_groups[0]["lr"] == 0.02
    assert run.optimizer.param_groups[0]["seed"] == 4
    assert len(run.augment) == 1
    assert recipe(data_dir=tmp_path).augment == []
    stores = [module for module in run.model.modules() if isinstance(module, DiscreteStore)]
    assert len(stores) == 4
    again, other = (recipe(data_dir=tmp_path, seed=seed).model.state_dict() for seed in (4, 5))
    assert all(torch.equal(tensor, again[name]) for name, tensor in run.model.state_dict().items())
    assert not torch.equal(again["0.store.planes"], other["0.store.planes"])


def test_mnist_trains_through_the_command_line(tmp_path):
    write_mnist(tmp_path / "data")
    words = [
        "--data-dir",
        str(tmp_path / "data"),
        "--batch-size",
        "10",
        "--epochs",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", str(RECIPES / "mnist_gxnor.py"), *words]) == 0
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["bits_per_weight"] == 2.0
    assert 0.4 < summary["resting_probability"] < 0.9
    assert summary["energy_j"] > 0
    assert summary["skipped_steps"] == 0


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    write_mnist(tmp_path)
    recipe = load_recipe(RECIPES / "mnist_gxnor.py").function

    def run() -> Run:
        return recipe(data_dir=tmp_path, batch_size=10, epochs=2)

    whole, resumed = run(), run()
    Trainer(whole, tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        Trainer(run(), tmp_path / "parts", callbacks=[SignalAt(("step ends", 1, 1))]).fit()
    Trainer(resumed, tmp_path / "parts", callbacks=[SignalAt(("never", 0, 0))]).resume()
    assert_same_state(training_state(whole), training_state(resumed))


@pytest.mark.skipif("BNN_DATA" not in os.environ, reason="set BNN_DATA to a folder with MNIST/raw")
@pytest.mark.slow
def test_mnist_learns_in_an_epoch(tmp_path):
    words = ["--data-dir", os.environ["BNN_DATA"], "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", str(RECIPES / "mnist_gxnor.py"), *words]) == 0
    assert read_json(tmp_path / "run" / "summary.json")["test_accuracy"] > 0.975
