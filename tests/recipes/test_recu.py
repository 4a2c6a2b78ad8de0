"""What the recipe of ReCU, OvSW and the plain sign promises beyond every recipe's promises."""

import typing
from itertools import product
from pathlib import Path

import pytest
import torch

from bnn.cli import main
from bnn.cost.meters.weights import WeightMeter
from bnn.errors import DataError
from bnn.layers import BinaryConv2d
from bnn.methods import AdaptiveGradientScaling, SilenceAwareDecay, TauSchedule
from bnn.quantizers import ReCU, Sign
from bnn.training.directory import read_json, read_metrics
from bnn.training.recipe import load_recipe
from bnn.weights import AccumulatorStore, LatentStore, named_stores

PATH = Path(__file__).parents[2] / "recipes" / "recu.py"
RECU = load_recipe(PATH)
SMALL = {"model": "resnet8", "epochs": 2, "batch_size": 10}


def quantizer_of(run) -> ReCU | Sign:
    (first, *others) = [store.quantizer for _, store in named_stores(run.model)]
    assert all(repr(other) == repr(first) for other in others)
    return first


def kinds(run) -> set[type]:
    return {type(callback) for callback in run.callbacks} - {WeightMeter}


SCHEDULED = {TauSchedule}
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
    assert set(typing.get_args(typing.get_type_hints(RECU.function)["variant"])) == set(VARIANTS)


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
    for asked in (41, 0, -1):
        with pytest.raises(DataError, match=f"cifar10 has 40 training images: take 1 to 40 of them, not {asked}"):
            RECU(data_dir=images, train_images=asked, **SMALL)


def test_training_with_both_methods_writes_what_became_of_the_weights(images, tmp_path):
    words = ["--data-dir", str(images), "--model", "resnet8", "--variant", "recu_ovsw", "--epochs", "1"]
    words += ["--batch-size", "6", "--out", str(tmp_path / "run")]
    assert main(["train", str(PATH), *words]) == 0
    (record,) = read_metrics(tmp_path / "run")
    assert 0 < record["flip_rate"] < 1
    assert 0 < record["clipped_share"] < 1
    assert len(read_json(tmp_path / "run" / "summary.json")["weight_state"]) == 6


def test_the_binary_networks_take_products_of_bfloat16(images):
    assert RECU(data_dir=images, precision="bfloat16", **SMALL).precision == "bfloat16"
    assert RECU(data_dir=images, **SMALL).precision == "float32"


DTYPES = {"standard": (LatentStore, torch.float32), "edge": (AccumulatorStore, torch.float16)}
DTYPES["edge-min"] = (AccumulatorStore, torch.int8)


@pytest.mark.parametrize("preset", DTYPES)
@pytest.mark.parametrize("variant", ["sign", "standardized", "recu", "recu_project"])
def test_presets_keep_the_quantizer_in_stores_of_their_own(preset, variant, images):
    run = RECU(data_dir=images, preset=preset, variant=variant, **SMALL)
    begins, callbacks = VARIANTS[variant]
    assert repr(quantizer_of(run)).startswith(begins)
    assert kinds(run) == callbacks
    assert {(type(store), store.weight.dtype) for _, store in named_stores(run.model)} == {DTYPES[preset]}


def test_the_learning_rate_is_one_for_recu_or_the_preset_s_own_unless_it_is_given(images):
    rates = {"standard": (0.1, 0.1), "edge": (3e-2, 3e-3), "edge-min": (0.1, 2e-2)}
    for (preset, (of_recu, own)), variant in product(rates.items(), ("recu", "sign")):
        rate = of_recu if variant == "recu" else own
        run = RECU(data_dir=images, preset=preset, variant=variant, **SMALL)
        assert run.optimizer.param_groups[0]["lr"] == rate
        run = RECU(data_dir=images, preset=preset, learning_rate=0.5, **SMALL)
        assert run.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.filterwarnings("ignore:.*gradient has no few steps")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("preset", DTYPES)
def test_the_window_of_the_inputs_can_follow_each_example(normalize, preset, images):
    run = RECU(data_dir=images, preset=preset, normalize_inputs=normalize, **SMALL)
    quantizers = [layer.input_quantizer for layer in run.model.modules() if isinstance(layer, BinaryConv2d)]
    assert [quantizer.normalize for quantizer in quantizers] == [normalize] * 6


@pytest.mark.parametrize("preset", [pytest.param("edge", marks=pytest.mark.slow), "edge-min"])
def test_projection_and_its_schedule_reach_accumulators(preset, images, tmp_path):
    words = ["--data-dir", str(images), "--model", "resnet8", "--variant", "recu_project", "--preset", preset]
    words += ["--epochs", "2", "--batch-size", "6", "--tau-start", "0.85", "--tau-end", "0.9"]
    assert main(["train", str(PATH), *words, "--out", str(tmp_path / "run")]) == 0
    first, second = read_metrics(tmp_path / "run")
    assert 0.85 == first["tau"] < second["tau"] < 0.9
    for record in (first, second):
        assert 0 < record["flip_rate"] < 1
        assert 0 < record["never_flipped"] < 1
        assert 0 <= record["clipped_share"] < 1


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
@pytest.mark.parametrize("variant", ["gradient_scaling", "silence_decay"])
def test_ovsw_under_presets_without_dense_gradients_is_one_line(preset, variant, images, tmp_path, capsys):
    words = ["--data-dir", str(images), "--model", "resnet8", "--variant", variant, "--preset", preset]
    assert main(["train", str(PATH), *words, "--batch-size", "6", "--out", str(tmp_path / "run")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("bnn: ")
    assert "needs a dense gradient" in last
