"""What the recipe of compressible networks promises beyond every recipe's promises."""

import json
from pathlib import Path

import pytest
import torch

from bnn.cli import main
from bnn.cost.meters.weights import WeightMeter
from bnn.errors import CheckpointError, RecipeError
from bnn.methods import PenaltySchedule, Ternarize
from bnn.training.checkpoint import load
from bnn.training.directory import read_metrics
from bnn.training.recipe import load_recipe
from bnn.weights import SparseStore

PATH = Path(__file__).parents[2] / "recipes" / "compressible.py"
COMPRESSIBLE = load_recipe(PATH)


def kinds(run) -> set[type]:
    return {type(callback) for callback in run.callbacks} - {WeightMeter}


def test_a_compressible_network_takes_half_a_bit_a_weight(images, tmp_path, capsys):
    words = [
        "--data-dir",
        str(images),
        "--width",
        "8",
        "--hidden",
        "64",
        "--density",
        "0.08",
        "--real-epochs",
        "1",
        "--epochs",
        "2",
        "--batch-size",
        "6",
    ]
    run = tmp_path / "run"
    assert main(["train", str(PATH), *words, "--out", str(run)]) == 0
    assert [record["sparsity"] for record in read_metrics(run)] == [0, pytest.approx(0.92, abs=0.001)]
    assert main(["compress", str(run), "-o", str(tmp_path / "m.bnnz")]) == 0
    capsys.readouterr()
    assert main(["inspect", "--json", str(tmp_path / "m.bnnz")]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["weights"] == 9 * 8 * 8 * (1 + 2 + 4 + 8 + 16) + 512 * 64
    assert described["bits_per_weight"] <= 0.5
    assert {len(tensor["levels"]) for tensor in described["tensors"] if tensor["levels"]} == {3}


def test_without_a_density_weights_stay_real_and_are_not_penalized(images):
    run = COMPRESSIBLE(data_dir=images, density=None, width=4, hidden=8, epochs=2)
    assert kinds(run) == set()
    assert run.loss.strength == 0
    penalized = COMPRESSIBLE(data_dir=images, width=4, hidden=8, epochs=2, real_epochs=1)
    assert kinds(penalized) == {PenaltySchedule, Ternarize}
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), penalized.model.parameters(), strict=True))
    assert sum(isinstance(module, SparseStore) for module in run.model.modules()) == 6


@pytest.mark.parametrize(("real_epochs", "epochs"), [(0, 4), (4, 4), (5, 4)])
def test_real_epochs_leave_some_for_tuning(real_epochs, epochs, images):
    with pytest.raises(RecipeError, match=f"of {epochs} epochs, {real_epochs} cannot be real"):
        COMPRESSIBLE(data_dir=images, epochs=epochs, real_epochs=real_epochs)


@pytest.mark.parametrize("rate", [0.0, -0.1])
def test_a_tuning_rate_is_above_0(rate, images):
    with pytest.raises(RecipeError, match=f"the tuning rate is above 0, got {rate}"):
        COMPRESSIBLE(data_dir=images, tuning_rate=rate)


def test_the_rate_of_tuning_is_another(images):
    run = COMPRESSIBLE(data_dir=images, width=4, hidden=8, epochs=4, real_epochs=2, learning_rate=0.1, tuning_rate=0.02)
    assert [0.1 * run.schedule(epoch) for epoch in (0.5, 1.99999, 2, 3)] == pytest.approx(
        [0.1, 0, 0.02, 0.01], abs=1e-4
    )


@pytest.mark.slow
def test_a_run_of_real_weights_can_be_made_ternary(images, tmp_path):
    words = ["train", str(PATH), "--data-dir", str(images), "--width", "4"]
    words += ["--hidden", "16", "--batch-size", "6"]
    real = tmp_path / "real"
    assert main([*words, "--density", "null", "--epochs", "1", "--out", str(real)]) == 0
    run = COMPRESSIBLE(data_dir=images, start=real, width=4, hidden=16, epochs=2, learning_rate=0.1, tuning_rate=0.02)
    weights = load(real / "checkpoints").tensors
    assert all(torch.equal(tensor, weights[f"model.{name}"]) for name, tensor in run.model.state_dict().items())
    assert kinds(run) == {Ternarize}
    assert 0.1 * run.schedule(0) == pytest.approx(0.02)
    assert main([*words, "--start", str(real), "--epochs", "1", "--out", str(tmp_path / "ternary")]) == 0
    assert [record["sparsity"] for record in read_metrics(tmp_path / "ternary")] == [pytest.approx(0.895, abs=0.001)]


def test_a_start_that_is_no_run_is_refused_in_one_line(images, tmp_path):
    with pytest.raises(CheckpointError, match="checkpoint"):
        COMPRESSIBLE(data_dir=images, start=tmp_path, width=4, hidden=16)


def test_a_pattern_takes_the_place_of_a_density(images):
    run = COMPRESSIBLE(data_dir=images, pattern="2:4", density=None, width=4, hidden=8, epochs=2, real_epochs=1)
    (kept,) = (callback for callback in run.callbacks if isinstance(callback, Ternarize))
    assert (str(kept.pattern), kept.density, kept.epoch) == ("2:4", None, 1)
    with pytest.raises(RecipeError, match="written as 4:8, got 'half'"):
        COMPRESSIBLE(data_dir=images, pattern="half", width=4, hidden=8)
