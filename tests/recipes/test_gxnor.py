"""What the recipe of GXNOR-Net promises beyond every recipe's promises."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bnn.cli import main
from bnn.data import RandomCrop, RandomFlip, RandomShift, cifar10, named
from bnn.errors import Interrupted, RecipeError
from bnn.optim.dst import DST
from bnn.training import Run, Trainer
from bnn.training.directory import read_json
from bnn.training.recipe import load_recipe
from bnn.weights import DiscreteStore, WeightStore
from tests.recipes.small_data import write_mnist
from tests.training.tiny_runs import SignalAt, assert_same_state, training_state

RECIPES = Path(__file__).parents[2] / "recipes"


def test_mnist_builds_what_it_says(tmp_path):
    write_mnist(tmp_path)
    recipe = load_recipe(RECIPES / "gxnor.py")
    run = recipe(data_dir=tmp_path, learning_rate=0.02, m=None, shift=0.1, seed=4)
    assert isinstance(run.optimizer, DST)
    assert run.optimizer.param_groups[0]["m"] is None
    assert run.optimizer.param_groups[0]["lr"] == 0.02
    assert run.optimizer.param_groups[0]["seed"] == 4
    assert run.augment == [RandomShift(fraction=0.1)]
    assert recipe(data_dir=tmp_path).augment == []
    stores = [module for module in run.model.modules() if isinstance(module, DiscreteStore)]
    assert len(stores) == 4
    again, other = (recipe(data_dir=tmp_path, seed=seed).model.state_dict() for seed in (4, 5))
    assert all(torch.equal(tensor, again[name]) for name, tensor in run.model.state_dict().items())
    planes = next(name for name in again if name.endswith("store.planes"))
    assert not torch.equal(again[planes], other[planes])


@pytest.mark.parametrize(
    ("dataset", "weights", "augmentation"),
    [("cifar10", 12_973_440, [RandomCrop(padding=4), RandomFlip()]), ("svhn", 12_973_440, [RandomCrop(padding=4)])],
)
@pytest.mark.parametrize("name", ["gxnor", "mtj"])
def test_a_data_set_has_its_network_and_augmentation(name, dataset, weights, augmentation, images, monkeypatch):
    colour = cifar10(images)
    monkeypatch.setitem(named._LOADERS, "svhn", lambda data_dir, *, download: replace(colour, name="svhn"))
    recipe = load_recipe(RECIPES / f"{name}.py")
    run = recipe(data_dir=images, dataset=dataset, precision="bfloat16", epochs=3)
    assert run.data.name == dataset
    assert sum(module.size for module in run.model.modules() if isinstance(module, WeightStore)) == weights
    assert run.augment == augmentation
    assert run.precision == "bfloat16"
    assert run.schedule(1.5) == pytest.approx(0.5)
    with pytest.raises(RecipeError, match=f"only images of mnist are shifted, those of {dataset} are cropped"):
        recipe(data_dir=images, dataset=dataset, shift=0.1)


def test_defaults_are_those_of_mnist(tmp_path):
    write_mnist(tmp_path)
    run = load_recipe(RECIPES / "gxnor.py")(data_dir=tmp_path)
    assert (run.data.name, run.epochs, run.precision) == ("mnist", 100, "float32")
    assert sum(module.size for module in run.model.modules() if isinstance(module, WeightStore)) == 581_408


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
    assert main(["train", str(RECIPES / "gxnor.py"), *words]) == 0
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["bits_per_weight"] == 2.0
    assert 0.4 < summary["resting_probability"] < 0.9
    assert summary["energy_j"] > 0
    assert summary["skipped_steps"] == 0


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    write_mnist(tmp_path)
    recipe = load_recipe(RECIPES / "gxnor.py")

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
    assert main(["train", str(RECIPES / "gxnor.py"), *words]) == 0
    assert read_json(tmp_path / "run" / "summary.json")["test_accuracy"] > 0.975
