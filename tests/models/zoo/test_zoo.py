"""The networks of larq-zoo: logits, counts and settings are those of larq-zoo itself (golden.json)."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnn.cost import count_layers, storage
from bnn.layers import BinaryBlock, BinaryLayer, BlurPool2d, HalfTurn
from bnn.models.zoo import RELEASED, checking
from bnn.models.zoo.keras_order import layers_of
from bnn.quantizers import Sign


def on_meta(name: str, **options) -> nn.Sequential:
    with torch.device("meta"):
        return RELEASED[name].build(**options)


@pytest.mark.parametrize("name", RELEASED)
def test_logits_are_those_of_larq_zoo(name):
    """Of a small image; the values' few bits make every sign independent of the order of sums."""
    assert checking.largest_difference(name, checking.golden()[name]["cases"][0]) < checking.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_logits_of_a_whole_image_are_those_of_larq_zoo(name):
    case = checking.golden()[name]["cases"][1]
    assert (case["size"], case["classes"]) == (224, 1000)
    assert checking.largest_difference(name, case) < checking.TOLERANCE


def take_another_eps(model: nn.Sequential) -> None:
    *_, norm = (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    norm.eps = 1e-3


def turn_back(model: nn.Sequential) -> None:
    model[0] = nn.Identity()


def pad_with_zeros(model: nn.Sequential) -> None:
    unit = next(module for module in model if hasattr(module, "pad"))
    unit.pad, unit.block.product.padding = nn.Identity(), 1


def forget_to_rectify(model: nn.Sequential) -> None:
    next(module for module in model.modules() if isinstance(module, BinaryBlock) and module.rectifies).rectifies = False


@pytest.mark.parametrize("change", [take_another_eps, turn_back, pad_with_zeros, forget_to_rectify])
def test_a_small_change_shows_in_the_logits(change):
    case = checking.golden()["quicknet_small"]["cases"][0]
    model = checking.with_check_values("quicknet_small", size=case["size"], classes=case["classes"])
    before = checking.logits(model, "quicknet_small", case["size"])
    change(model)
    after = checking.logits(model.eval(), "quicknet_small", case["size"])
    assert (after - before).abs().max() > checking.TOLERANCE


@pytest.mark.parametrize("name", RELEASED)
def test_counts_are_those_of_larq(name):
    released, model = RELEASED[name], on_meta(name)
    assert checking.parameters(model) == released.parameters
    assert checking.binary_weights(model) == storage(model).discrete_weights == released.binary_weights
    layers = count_layers(model, (3, 224, 224))
    low_bit = sum(x.multiply_accumulates for x in layers if x.input_bits <= 2 and x.weight_bits == 1)
    everything = sum(x.multiply_accumulates for x in layers)
    # A fixed blur is a pooling here, which has no products.
    images = {module: module.channels for module in model.modules() if isinstance(module, BlurPool2d)}
    blurred = 9 * sum(channels * (28 >> place) ** 2 for place, channels in enumerate(images.values()))
    assert (low_bit, everything - low_bit + blurred) == (released.low_bit_macs, released.real_macs)
    weights = f"{storage(model).weights:,}"
    assert weights in released.build.__doc__
    assert f"{released.binary_weights:,} binary" in released.build.__doc__ or "all binary" in released.build.__doc__


@pytest.mark.parametrize("name", RELEASED)
def test_norms_and_windows_are_those_of_larq_zoo(name):
    model, golden = on_meta(name), checking.golden()[name]
    modules = dict(model.named_modules())
    norms = [modules[x.name] for x in layers_of(model) if isinstance(modules[x.name], _BatchNorm)]
    expected = [(eps, momentum) for count, eps, momentum in golden["norms"] for _ in range(count)]
    assert [(norm.eps, round(1 - norm.momentum, 6)) for norm in norms] == expected
    quantizers = [x for layer in model.modules() if isinstance(layer, BinaryLayer) for x in layer.modules()]
    windows = {x.window for x in quantizers if isinstance(x, Sign)} - {float("inf")}
    assert sorted(windows) == golden["windows"]


@pytest.mark.parametrize("name", RELEASED)
def test_images_that_do_not_fit_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} (takes images|leaves nothing)"):
        on_meta(name, input_shape=(3, 40, 40))


def test_every_parameter_of_a_file_has_its_own_place():
    for name in RELEASED:
        model = on_meta(name, classes=7)
        sizes = [torch.Size(slot.shape).numel() for layer in layers_of(model) for slot in layer.slots]
        assert sum(sizes) == checking.parameters(model)
        assert isinstance(model[0], HalfTurn) == (name not in ("binary_alexnet", "xnornet", "dorefanet"))
