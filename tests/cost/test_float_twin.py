"""The network in float32 that a binary one is compared with."""

import pytest
import torch
from torch import nn

from bnn.cost.float_twin import float_step, float_twin
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm, MaxPool2d
from bnn.presets import prepare
from bnn.quantizers import Sign
from bnn.training import TrainingStep
from bnn.weights import named_stores


def network() -> nn.Module:
    return nn.Sequential(
        BinaryBlock(BinaryConv2d(3, 8, 3, padding=1, stride=2, input_quantizer=None), nn.BatchNorm2d(8)),
        BinaryBlock(
            BinaryConv2d(8, 6, 3, groups=2), nn.BatchNorm2d(6), pool=MaxPool2d(2), activation=Sign(), recompute=True
        ),
        nn.Flatten(),
        BinaryLinear(6, 4, bias=True),
    )


def test_layers_are_torch_s_and_signs_are_hardtanh():
    twin = float_twin(network())
    kinds = [type(module).__name__ for module in twin.modules() if not list(module.children())]
    assert kinds == [
        "Conv2d", "BatchNorm2d", "Hardtanh", "Conv2d", "MaxPool2d", "BatchNorm2d", "Hardtanh", "Flatten", "Hardtanh",
        "Linear",
    ]  # fmt: skip
    assert {parameter.device.type for parameter in twin.parameters()} == {"meta"}
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float32}
    assert twin(torch.empty(2, 3, 8, 8, device="meta")).shape == (2, 4)


@pytest.mark.filterwarnings("ignore:3 is outside of a BinaryBlock")
@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
def test_the_network_itself_stays_as_it_was_and_its_shapes_are_kept(preset):
    step = prepare(preset, network, input_shape=(3, 8, 8))
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    twin = float_step(step)
    assert all(torch.equal(value, before[name]) for name, value in step.model.state_dict().items())
    weights = [store.shape for _, store in named_stores(step.model)]
    assert [parameter.shape for parameter in twin.model.parameters() if parameter.dim() > 1] == weights
    assert twin.slice_size is None


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), (torch.optim.SGD, 0.9)),
        (lambda p: torch.optim.AdamW(p), (torch.optim.Adam, None)),
    ],
)
def test_optimizer_is_the_run_s_own_or_adam(optimizer, expected):
    model = network()
    made = float_step(TrainingStep(model=model, optimizer=optimizer(model.parameters()))).optimizer
    assert (type(made), made.param_groups[0].get("momentum")) == expected


def test_a_layer_without_a_counterpart_is_refused():
    with pytest.raises(TypeError, match="BinaryNorm has no counterpart"):
        float_twin(nn.Sequential(BinaryLinear(4, 4), BinaryNorm(4)))
