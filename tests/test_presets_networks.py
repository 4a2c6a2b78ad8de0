"""The presets take every network of the package, in batches of any size."""

from functools import partial

import pytest
import torch
from torch import nn

from bnn.errors import RecipeError
from bnn.layers import BinaryBlock, BinaryConv2d
from bnn.models import binarynet, birealnet18, cnv, mlp, resnet8, resnet18, resnet20, resnete18, vgg7, vgg_small
from bnn.presets import prepare
from tests.contracts import randn

# Sizes small enough for a step, in which no slice divides the batch.
SMALL_NETWORKS = {
    mlp: ((2, 5, 7), {"hidden": (12, 9)}),
    cnv: ((1, 33, 32), {}),
    binarynet: ((1, 8, 16), {}),
    vgg7: ((1, 8, 16), {"width": 8, "hidden": 12}),
    vgg_small: ((1, 16, 8), {}),
    resnet8: ((2, 16, 8), {"width": 8}),
    resnet18: ((1, 16, 16), {}),
    resnet20: ((2, 12, 8), {}),
    resnete18: ((1, 40, 33), {}),
    birealnet18: ((2, 33, 40), {}),
}


def examples_of(input_shape, count):
    return randn(count, *input_shape), torch.arange(count) % 3


# Of 11 million weights; resnet18 has the units of resnet20, birealnet18 the stem of resnete18.
LARGE_NETWORKS = (resnet18, resnete18, birealnet18)
SLOW = (resnet18, birealnet18)


@pytest.mark.parametrize(
    ("preset", "network"),
    [
        *(
            pytest.param("edge-min", network, marks=[pytest.mark.slow] if network in SLOW else [])
            for network in SMALL_NETWORKS
        ),
        *(("edge", network) for network in SMALL_NETWORKS if network not in LARGE_NETWORKS),
    ],
)
@pytest.mark.filterwarnings("error:.* keeps floats")
def test_every_network_takes_a_step_of_a_batch_that_no_slice_divides(preset, network):
    input_shape, options = SMALL_NETWORKS[network]
    step = prepare(preset, partial(network, input_shape=input_shape, classes=3, **options), input_shape=input_shape)
    step.slice_size = 3 if preset == "edge-min" else None
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.model.train()
    assert step.take(*examples_of(input_shape, 8)).loss > 0
    same = [name for name, value in step.model.state_dict().items() if torch.equal(value, before[name])]
    assert not same, "every weight, norm and statistic takes part"
    step.model.eval()
    with torch.no_grad():
        assert step.model(examples_of(input_shape, 2)[0]).isfinite().all()


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_a_batch_of_one_has_statistics_where_every_layer_has_pixels(preset):
    def network():
        return nn.Sequential(
            BinaryBlock(BinaryConv2d(2, 8, 3, input_quantizer=None), nn.BatchNorm2d(8), activation=nn.Hardtanh()),
            BinaryBlock(BinaryConv2d(8, 3, 3), nn.BatchNorm2d(3)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    step = prepare(preset, network, input_shape=(2, 8, 8))
    assert step.take(randn(1, 2, 8, 8), torch.tensor([1])) is not None
    step = prepare(preset, partial(mlp, input_shape=(1, 6, 6), classes=4, hidden=(64,)), input_shape=(1, 6, 6))
    with pytest.raises(RecipeError, match="two values a channel"):
        step.take(randn(1, 1, 6, 6), torch.tensor([1]))
