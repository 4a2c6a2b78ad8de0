"""What the recipes of ReCU and of compressible networks promise beyond every recipe's promises."""

import json
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn.cli import main
from bnn.cost.weight_meter import WeightMeter
from bnn.errors import CheckpointError, DataError, RecipeError
from bnn.methods import PenaltySchedule, SparseStore, TauSchedule, Ternarize
from bnn.methods.ovsw import AdaptiveGradientScaling, SilenceAwareDecay
from bnn.quantizers import ReCU, Sign
from bnn.training.checkpoint import load
from bnn.training.directory import read_json, read_metrics
from bnn.training.recipe import load_recipe
from bnn.weights import LatentStore

RECIPES = Path(__file__).parents[2] / "recipes"
RECU, COMPRESSIBLE = (load_recipe(RECIPES / f"cifar10_{name}.py").function for name in ("recu", "compressible"))
SMALL = {"model": "resnet8", "epochs": 2, "batch_size": 10}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """An image folder of ten classes, brighter for higher ones, with four training images and one test image each."""
    folder = tmp_path_factory.mktemp("cifar")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 1)):
        for label in range(10):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 50, (32, 32, 3)) + 20 * label
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BNN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def quantizer_of(run) -> ReCU | Sign:
    (first, *others) = [module.quantizer for module in run.model.modules() if isinstance(module, LatentStore)]
    assert all(repr(other) == repr(first) for other in others)
    return first


def kinds(run) -> set[type]:
    return {type(callback) for callback in run.callbacks} - {WeightMeter}


SCHEDULED = {TauSchedule, ProjectLatents}
VARIANTS = {
    "sign": ("Sign(window=inf)", set()),
    "standardized": ("ReCU(tau=1, tail=zero, quantile=laplace, scope=layer, scale=none", set()),
    "recu": ("ReCU(tau=0.85, tail=zero, quantile=laplace, scope=layer, scale=none", SCHEDULED),
    "recu_pass": ("ReCU(tau=0.85, tail=pass, quantile=laplace, scope=layer, scale=none", SCHEDULED),
    "recu_project": ("ReCU(tau=0.85, tail=project, quantile=laplace, scope=layer, scale=none", SCHEDULED),
    "recu_alpha": ("ReCU(tau=0.85, tail=zero, quantile=laplace, scope=layer, scale=mean", SCHEDULED),
    "recu_empirical": ("ReCU(tau=0.85, tail=zero, quantile=empirical, scope=layer, scale=none", SCHEDULED),
    "recu_filter": ("ReCU(tau=0.85, tail=zero, quantile=laplace, scope=filter, scale=none", SCHEDULED),
    "gradient_scaling": ("Sign(window=inf)", {AdaptiveGradientScaling}),
    "silence_decay": ("Sign(window=inf)", {SilenceAwareDecay}),
    "ovsw": ("Sign(window=inf)", {AdaptiveGradientScaling, SilenceAwareDecay}),
    "recu_ovsw": (
        "ReCU(tau=0.85, tail=zero, quantile=laplace, scope=layer, scale=none",
        SCHEDULED | {AdaptiveGradientScaling, SilenceAwareDecay},
    ),
}


def test_every_variant_is_known():
    assert set(typing.get_args(typing.get_type_hints(RECU)["variant"])) == set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_its_quantizer_and_its_callbacks(variant, images):
    run = RECU(data_dir=images, variant=variant, **SMALL)
    begins, callbacks = VARIANTS[variant]
    assert repr(quantizer_of(run)).startswith(begins)
    assert kinds(run) == callbacks


def test_variants_begin_with_the_same_weights(images):
    states = [RECU(data_dir=images, variant=variant, **SMALL).model.state_dict() for variant in ("sign", "recu_ovsw")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_fewer_images_are_a_random_part(images):
    whole = RECU(data_dir=images, **SMALL).data.train
    part = RECU(data_dir=images, train_images=25, **SMALL).data.train
    assert (len(whole), len(part)) == (40, 25)
    assert len(part.labels.unique()) > 5
    again = RECU(data_dir=images, train_images=25, **{**SMALL, "seed": 3}).data.train
    assert torch.equal(part.labels, again.labels)
    for images_asked in (41, 0):
        with pytest.raises((DataError, RecipeError)):
            RECU(data_dir=images, train_images=images_asked, **SMALL)


def test_training_with_both_methods_writes_what_became_of_the_weights(images, tmp_path):
    words = ["--data-dir", str(images), "--model", "resnet8", "--variant", "recu_ovsw", "--epochs", "1"]
    words += ["--batch-size", "6", "--out", str(tmp_path / "run")]
    assert main(["train", str(RECIPES / "cifar10_recu.py"), *words]) == 0
    (record,) = read_metrics(tmp_path / "run")
    assert 0 < record["flip_rate"] < 1
    assert 0 < record["clipped_share"] < 1
    assert len(read_json(tmp_path / "run" / "summary.json")["weight_state"]) == 6


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
    assert main(["train", str(RECIPES / "cifar10_compressible.py"), *words, "--out", str(run)]) == 0
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


def test_a_run_of_real_weights_can_be_made_ternary(images, tmp_path):
    words = ["train", str(RECIPES / "cifar10_compressible.py"), "--data-dir", str(images), "--width", "4"]
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


def test_the_binary_networks_take_products_of_bfloat16(images):
    assert RECU(data_dir=images, precision="bfloat16", **SMALL).precision == "bfloat16"
    assert RECU(data_dir=images, **SMALL).precision == "float32"
