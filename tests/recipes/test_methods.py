"""What the recipe of the methods promises beyond every recipe's promises."""

import typing
from pathlib import Path

import pytest
import torch

from bnn.cli import main
from bnn.errors import RecipeError
from bnn.layers import BinaryLayer, HadamardClassifier
from bnn.training.directory import read_json
from bnn.training.recipe import load_recipe
from bnn.weights import named_stores
from tests.recipes.small_data import write_images, write_mnist

RECIPE = load_recipe(Path(__file__).parents[2] / "recipes" / "methods.py")
SMALL = {"epochs": 2, "batch_size": 10, "validation": 0.0}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder)
    return folder


def choices(option: str) -> list[tuple[str, str]]:
    return [(option, value) for value in typing.get_args(typing.get_type_hints(RECIPE.function)[option])]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pair
        for name in ("gradient", "norm", "head", "weights", "optimizer", "preset", "suppression")
        for pair in choices(name)
    ],
)
def test_every_choice_trains_a_step(option, value, digits):
    run = RECIPE(data_dir=digits, **{option: value}, **SMALL)
    assert run.take(torch.randn(10, 1, 28, 28), torch.arange(10)) is not None


def test_a_gradient_and_a_head_reach_the_layers(digits):
    run = RECIPE(data_dir=digits, gradient="fp6", head="hadamard", ghost_batch=5, **SMALL)
    layers = [module for module in run.model.modules() if isinstance(module, BinaryLayer)]
    assert {repr(layer.grad_quantizer) for layer in layers} == {"FloatGradient(bits=6)"}
    assert isinstance(run.model[-1], HadamardClassifier)
    assert run.slice_size == 5
    assert "gradients" in run.generators


def test_a_ghost_batch_as_large_as_the_batch_is_the_batch(digits):
    x, labels = torch.randn(10, 1, 28, 28), torch.arange(10)
    runs = [RECIPE(data_dir=digits, ghost_batch=size, **SMALL) for size in (None, 10, 5)]
    results = [run.take(x, labels) for run in runs]
    states = [run.model.state_dict() for run in runs]
    assert results[0] == results[1]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert results[2] != results[0]


def test_the_rate_goes_with_the_root_of_the_batch(digits):
    plain, wide = (RECIPE(data_dir=digits, rate_of_batch=of, **SMALL) for of in (None, 40))
    rates = [run.optimizer.param_groups[0]["lr"] for run in (plain, wide)]
    assert rates[1] == pytest.approx(rates[0] / 2)


@pytest.mark.parametrize(
    ("optimizer", "own_rate"), [("boolean", 150), ("boolean_relative", 0.1), ("boolean_no_leak", 150), ("bep", 2**-11)]
)
def test_the_rates_of_a_method_are_those_that_are_named(optimizer, own_rate, digits):
    run = RECIPE(data_dir=digits, optimizer=optimizer, rate=0.25, learning_rate=0.02, **SMALL)
    assert [group["lr"] for group in run.optimizer.param_groups] == [0.25, 0.02]
    own = [group["lr"] for group in RECIPE(data_dir=digits, optimizer=optimizer, **SMALL).optimizer.param_groups]
    assert own == [own_rate, 1e-3]


def test_a_preset_has_no_accumulators_rate(digits):
    with pytest.raises(RecipeError, match=r"^--rate is of accumulators: name a method with --optimizer"):
        RECIPE(data_dir=digits, rate=7.0, **SMALL)


def test_a_quarter_of_vgg_small_has_a_quarter_of_its_channels(tmp_path):
    write_images(tmp_path)
    run = RECIPE(data_dir=tmp_path, dataset="cifar10", model="vgg_small_quarter", optimizer="boolean", **SMALL)
    shapes = [tuple(store.shape[:2]) for _, store in named_stores(run.model)]
    assert shapes == [(32, 32), (64, 32), (64, 64), (128, 64), (128, 128)]


@pytest.mark.parametrize(
    "words",
    [
        ["--head", "hadamard", "--norm", "range", "--motion"],
        pytest.param(["--optimizer", "boolean"], marks=pytest.mark.slow),
    ],
)
def test_a_run_is_trained_and_evaluated_from_its_model_file(words, digits, tmp_path, capsys):
    run = tmp_path / "run"
    common = ["--data-dir", str(digits), "--epochs", "2", "--batch-size", "10", "--validation", "0"]
    assert main(["train", "methods", *common, *words, "--out", str(run)]) == 0
    summary = read_json(run / "summary.json")
    assert {"mu", "sigma", "zeros", "distance"} == set(next(iter(summary["gradient_fit"].values())))
    assert ("distance_log_slope" in summary) == ("--motion" in words)
    assert not summary["uncounted"]
    assert 0 < summary["energy_narrow_j"] < summary["energy_j"]
    assert all(of["measured_bits"] <= of["exact_bits"] for of in summary["accumulators"].values())
    assert main(["eval", str(run)]) == 0
    assert f"{100 * summary['test_accuracy']:.2f}" in capsys.readouterr().out
