"""ResNet-8, and what the CIFAR networks do with real inputs of their convolutions."""

import pytest
import torch

from bnn.cost import count_layers, storage
from bnn.models import initialize, resnet20, vgg_small
from bnn.models.resnet_cifar import resnet8
from bnn.weights import LatentStore
from tests.contracts import randn


def multiply_accumulates(build) -> int:
    with torch.device("meta"):
        return sum(layer.multiply_accumulates for layer in count_layers(build(), (3, 32, 32)))


def test_weights_and_work():
    stored = storage(resnet8())
    assert (stored.weights, stored.discrete_weights) == (74_800, 73_728)
    # 3x3 kernels of 16 channels at 16x16, 32 at 8x8 and 64 at 4x4, behind a stem and before a classifier.
    stages = 2 * 16 * 16 * 256 + (16 * 32 + 32 * 32) * 64 + (32 * 64 + 64 * 64) * 16
    assert multiply_accumulates(resnet8) == 9 * (3 * 16 * 256 + stages) + 640
    assert multiply_accumulates(resnet20) / multiply_accumulates(resnet8) == pytest.approx(13, abs=0.5)


@pytest.mark.parametrize("width", [4, 24])
def test_width(width):
    stored = storage(resnet8(width=width))
    assert stored.discrete_weights == 9 * width**2 * (2 + 2 + 4 + 8 + 16)


def test_a_step_reaches_every_parameter(generator):
    model = resnet8(input_shape=(2, 16, 24), classes=3, width=4)
    initialize(model, generator=generator)
    torch.nn.functional.cross_entropy(model(randn(4, 2, 16, 24)), torch.tensor([0, 1, 2, 0])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("build", "options"), [(resnet8, {"width": 4}), (vgg_small, {"input_shape": (1, 8, 8)}), (resnet20, {})]
)
def test_real_inputs_where_no_quantizer_is_given(build, options):
    made: list[LatentStore] = []

    def store(shape):
        made.append(LatentStore(shape))
        return made[-1]

    model = build(store=store, input_quantizer=None, **options)
    layers = [module for module in model.modules() if getattr(module, "store", None) in made]
    assert len(layers) == len(made) > 0
    assert all(layer.input_quantizer is None for layer in layers)
