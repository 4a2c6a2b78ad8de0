"""Counts of a network small enough to count by hand."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from bnn.accounting import HOROWITZ_45NM, Event, Ledger, count_layers, count_step
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.models import binarynet, resnet20
from bnn.quantizers import Ternary
from bnn.stores import LatentStore

BATCH = 2


def network() -> nn.Sequential:
    """1x4x4 -> binary convolution of the real image -> batch norm -> 32 signs -> 3."""
    return nn.Sequential(
        BinaryConv2d(1, 2, 3, padding=1, input_quantizer=None),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        BinaryLinear(32, 3),
    )


def stepped(model: nn.Module, shape: tuple[int, ...], **options) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    model(torch.randn(BATCH, *shape)).square().sum().backward()
    optimizer.step()
    return optimizer


def mac(where: str, phase: str, narrow: int, wide: int) -> Event:
    return Event("multiply-accumulate", (narrow, wide), where, phase)


def read(where: str, phase: str, bits: int) -> Event:
    return Event("read", (bits,), where, phase)


def write(where: str, phase: str, bits: int) -> Event:
    return Event("write", (bits,), where, phase)


IMAGE, MAP, CONV, LINEAR, OUT = BATCH * 16, BATCH * 32, 18, 96, BATCH * 3
PARAMETERS = CONV + 2 + 2 + LINEAR

BY_HAND = Counter(
    {
        # Convolution: real input times sign; it has no gradient to hand down.
        read("0", "forward", 32): IMAGE,
        read("0", "forward", 1): CONV,
        write("0", "forward", 32): MAP,
        mac("0", "forward", 1, 32): MAP * 9,
        read("0", "backward", 32): IMAGE + MAP,
        read("0", "backward", 1): CONV,
        write("0", "backward", 32): CONV,
        mac("0", "backward", 32, 32): MAP * 9,
        # Batch norm and flatten: traffic only.
        read("1", "forward", 32): MAP,
        write("1", "forward", 32): MAP,
        read("1", "backward", 32): MAP + MAP,
        write("1", "backward", 32): MAP,
        read("2", "forward", 32): MAP,
        write("2", "forward", 32): MAP,
        read("2", "backward", 32): MAP + MAP,
        write("2", "backward", 32): MAP,
        # Linear: bits times bits forward, gradient times bits for the input and for the weight.
        read("3", "forward", 1): MAP + LINEAR,
        write("3", "forward", 32): OUT,
        mac("3", "forward", 1, 1): OUT * 32,
        read("3", "backward", 1): MAP + LINEAR,
        read("3", "backward", 32): OUT,
        write("3", "backward", 32): MAP + LINEAR,
        mac("3", "backward", 1, 32): 2 * OUT * 32,
        # SGD with momentum: reads gradient, parameter and momentum, writes the latter two.
        read("optimizer", "update", 32): 3 * PARAMETERS,
        write("optimizer", "update", 32): 2 * PARAMETERS,
    }
)


def test_ledger_of_a_step_by_hand():
    model = network()
    ledger = count_step(model, stepped(model, (1, 4, 4), momentum=0.9), (1, 4, 4), batch_size=BATCH)
    assert ledger.counts == BY_HAND


def test_energy_of_a_step_by_hand():
    dram_J = 1950e-12 / 64  # a bit
    bits = sum(n * event.bits[0] for event, n in BY_HAND.items() if event.op != "multiply-accumulate")
    products_J = (
        0.9e-12 * (MAP * 9 + 2 * OUT * 32)  # a float is added or subtracted
        + (0.9e-12 + 3.7e-12) * MAP * 9  # a float product
        + 16 * 0.1e-12 / 32 * OUT * 32  # a sum of signs in 16 bits
    )
    assert Ledger(BY_HAND).energy_J(HOROWITZ_45NM) == pytest.approx(bits * dram_J + products_J, rel=1e-12)


def test_optimizer_s_state_counts_as_wide_as_it_is_stored():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    optimizer = stepped(model, (3,), momentum=0.9)
    weight = model[0].weight
    optimizer.state[weight]["momentum_buffer"] = torch.zeros((2, 3), dtype=torch.bfloat16)
    optimizer.state[weight]["steps"] = 5
    counts = count_step(model, optimizer, (3,), batch_size=BATCH).counts
    update = {(e.op, e.bits[0]): n for e, n in counts.items() if e.phase == "update"}
    assert update == {("read", 32): 12, ("write", 32): 6, ("read", 16): 6, ("write", 16): 6}


def test_parameters_without_state_are_counted_and_get_none():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = count_step(model, optimizer, (1, 4, 4), batch_size=1).counts
    assert counts[read("optimizer", "update", 32)] == 2 * PARAMETERS
    assert not optimizer.state


def test_layers_equal_the_shapes_of_a_real_forward_pass():
    model = resnet20(input_shape=(1, 12, 8), classes=3).eval()
    counted = count_layers(model, (1, 12, 8), batch_size=BATCH)
    seen = []
    for name, module in model.named_modules():
        if name in {layer.name for layer in counted}:
            module.register_forward_hook(
                lambda _, inputs, output, name=name: seen.append((name, inputs[0].numel(), output.numel()))
            )
    model(torch.randn(BATCH, 1, 12, 8))
    assert [(layer.name, layer.input_elements, layer.output_elements) for layer in counted] == seen


def test_widths_of_the_operands():
    ternary = LatentStore((4, 8), quantizer=Ternary())
    model = nn.Sequential(
        nn.Linear(8, 8),
        BinaryLinear(8, 8, bias=True, learned_scale=True),
        BinaryLinear(8, 4, store=lambda _: ternary, input_quantizer=None),
        nn.Linear(4, 4, dtype=torch.float32).requires_grad_(False),
    )
    layers = count_layers(model, (8,), batch_size=3)
    assert [layer.kind for layer in layers] == ["Linear", "BinaryLinear", "BinaryLinear", "Linear"]
    assert [(layer.input_bits, layer.weight_bits, layer.output_bits) for layer in layers] == [
        (32, 32, 32),
        (1, 1, 32),
        (32, 2, 32),
        (32, 32, 32),
    ]
    assert [layer.weights for layer in layers] == [64, 64, 32, 16]
    assert [layer.other_parameters for layer in layers] == [8, 16, 0, 4]
    assert [layer.multiply_accumulates for layer in layers] == [192, 192, 96, 48]
    assert [layer.needs_input_gradient for layer in layers] == [False, True, True, True]


def test_groups_and_strides_and_padding():
    model = nn.Sequential(BinaryConv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Conv2d(6, 2, 2, bias=False))
    first, second = count_layers(model, (4, 7, 5))
    assert (first.output_elements, first.multiply_accumulates) == (6 * 4 * 3, 6 * 4 * 3 * 2 * 9)
    assert (second.output_elements, second.multiply_accumulates) == (2 * 3 * 2, 2 * 3 * 2 * 6 * 4)


def test_counting_leaves_the_model_as_it_was():
    model = network()
    model[1].eval()
    optimizer = stepped(model, (1, 4, 4), momentum=0.9)
    flags = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    tensors = copy.deepcopy(model.state_dict())
    identities = [id(parameter) for parameter in model.parameters()]
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    count_step(model, optimizer, (1, 4, 4), batch_size=BATCH)
    assert [module.training for module in model.modules()] == flags
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


class Unforeseen(nn.Module):
    """Looks at values, which shapes alone do not have."""

    def forward(self, x):
        return x if x.sum().item() > 0 else -x


def test_a_failure_leaves_the_model_as_it_was_too():
    model = nn.Sequential(nn.Linear(4, 4), Unforeseen())
    with pytest.raises(RuntimeError):
        count_layers(model, (4,))
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert not model[0].weight.is_meta


def test_counting_takes_no_memory_for_weights_or_activations():
    """56 million weights and a batch of 4,000 images of BinaryNet would take hundreds of GiB."""
    with torch.device("meta"):
        model = binarynet()
    layers = count_layers(model, (3, 32, 32), batch_size=4000)
    assert sum(layer.multiply_accumulates for layer in layers) == pytest.approx(4000 * 617.0e6, rel=1e-4)
