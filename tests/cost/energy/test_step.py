"""Counts of a training step, small enough to count by hand."""

import copy
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from bnn.cost.energy import HOROWITZ_45NM, Event, Ledger, count_step
from bnn.errors import RunError
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d
from bnn.optim import Adam
from bnn.quantizers import Sign
from bnn.quantizers.gradients import Int8Gradient, IntegerGradient, SignGradient
from bnn.weights import AccumulatorStore

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


def mac(where: str, phase: str, narrow: int, wide: int, accumulator: int = 32) -> Event:
    return Event("multiply-accumulate", (narrow, wide, accumulator), where, phase)


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
        # Batch norm: traffic only. Flatten moves nothing.
        read("1", "forward", 32): MAP,
        write("1", "forward", 32): MAP,
        read("1", "backward", 32): MAP + MAP,
        write("1", "backward", 32): MAP,
        # Linear: bits times bits forward, gradient times bits for the input and for the weight.
        read("3", "forward", 1): MAP + LINEAR,
        write("3", "forward", 32): OUT,
        mac("3", "forward", 1, 1, 7): OUT * 32,  # sums of 32: 65 values
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
        + 7 * 0.1e-12 / 32 * OUT * 32  # a sum of signs in 7 bits
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


def narrow_network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    signs = SignGradient(packed=True, scale="none", generator=generator)
    store = partial(AccumulatorStore, gradient_quantizer=signs)
    return nn.Sequential(BinaryLinear(40, 20, store=store, grad_quantizer=Int8Gradient(generator=generator)))


def narrow_step(*, slices: int = 1, updates: int = 1) -> Counter[Event]:
    model = narrow_network()
    optimizer = Adam(model.parameters(), state_dtype=torch.float16)
    model(torch.randn(6, 40)).square().sum().backward()
    optimizer.step()
    of_each = dict.fromkeys(model.parameters(), updates)
    return count_step(model, optimizer, (40,), batch_size=6, slices=slices, updates=of_each).counts


def test_narrow_gradients_are_narrow_in_products_traffic_and_update():
    counts = narrow_step()
    products = {(e.phase, e.bits): n for e, n in counts.items() if e.op == "multiply-accumulate"}
    # The gradient of a weight sums 6 products of ±1 with up to 127: 1525 values.
    assert products == {("forward", (1, 1, 7)): 6 * 800, ("backward", (1, 8, 11)): 6 * 800}
    assert counts[write("0", "backward", 1)] == 800
    assert counts[read("0", "backward", 8)] == 6 * 20
    update = {(e.op, e.bits[0]): n for e, n in counts.items() if e.phase == "update"}
    # The signs, the int8 accumulators and two float16 moments.
    assert update == {
        ("read", 1): 800,
        ("read", 8): 800,
        ("write", 8): 800,
        ("read", 16): 1600,
        ("write", 16): 1600,
    }


def test_a_block_forms_its_product_again_in_backward():
    """Behind another layer: bits in, a sign out; 2x4x4 to 3x2x2 by a 3x3 convolution and a pooling."""
    generator = torch.Generator().manual_seed(0)
    conv = BinaryConv2d(2, 3, 3, padding=1, grad_quantizer=Int8Gradient(generator=generator))
    block = BinaryBlock(conv, nn.BatchNorm2d(3), pool=MaxPool2d(2), activation=Sign(), recompute=True)
    model = nn.Sequential(nn.BatchNorm2d(2), block)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = count_step(model, optimizer, (2, 4, 4), batch_size=BATCH).counts
    x, product, pooled, weights = BATCH * 32, BATCH * 48, BATCH * 12, 54
    macs = product * 18
    of_block = {event: n for event, n in counts.items() if event.where.startswith("1.") and n}
    assert of_block == {
        # Forward: the product is pooled before it is written, the norm's result is written as a sign.
        read("1.product", "forward", 1): x + weights,
        mac("1.product", "forward", 1, 1, 6): macs,  # sums of 18: 37 values
        write("1.pool", "forward", 16): pooled,
        read("1.norm", "forward", 16): pooled,
        write("1.activation", "forward", 1): pooled,
        # Backward: what passes the sign, of the gradient; the product again, with two bits a window.
        read("1.activation", "backward", 16): pooled,
        read("1.activation", "backward", 1): pooled,
        mac("1.product", "backward", 1, 1, 6): macs,
        write("1.pool", "backward", 18): pooled,
        read("1.pool", "backward", 18): pooled,
        write("1.norm", "backward", 8): pooled,
        read("1.pool", "backward", 8): pooled,
        write("1.pool", "backward", 8): product,
        read("1.product", "backward", 8): product,
        # Signs and windows of the input, the signs again for the product, and the weight for product and gradient.
        read("1.product", "backward", 2): x,
        read("1.product", "backward", 1): x + 2 * weights,
        mac("1.product", "backward", 1, 8, 13): 2 * macs,  # 32 of up to 127 for a weight, 27 for an input
        write("1.product", "backward", 32): x + weights,
    }


def test_accumulators_are_as_wide_as_the_sums_of_each_product():
    rounded = {"grad_quantizer": Int8Gradient()}
    model = nn.Sequential(nn.BatchNorm2d(16), BinaryConv2d(16, 4, 3, padding=1, **rounded))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = count_step(model, optimizer, (16, 8, 8), batch_size=2).counts
    products = {(e.phase, e.bits): n for e, n in counts.items() if e.op == "multiply-accumulate"}
    assert set(products.values()) == {2 * 64 * 4 * 144}
    assert list(products) == [
        ("forward", (1, 1, 9)),  # 16 x 9 products of ±1
        ("backward", (1, 8, 15)),  # 2 x 64 of up to 127, for a weight
        ("backward", (1, 8, 14)),  # 4 x 9 of them, for an input
    ]


@pytest.mark.parametrize(
    ("make", "bits"),
    [(partial(Int8Gradient, ternary_weights=True), 2), (partial(IntegerGradient, 8, weight_bits=4), 4)],
)
def test_the_product_for_the_weight_has_its_own_width(make, bits):
    conv = BinaryConv2d(16, 4, 3, padding=1, grad_quantizer=make(generator=torch.Generator()))
    model = nn.Sequential(nn.BatchNorm2d(16), BinaryBlock(conv, nn.BatchNorm2d(4), recompute=True))
    counts = count_step(model, torch.optim.SGD(model.parameters(), lr=0.1), (16, 8, 8), batch_size=2).counts
    products = [e.bits for e in counts if e.op == "multiply-accumulate" and e.phase == "backward"]
    assert {widths[:2] for widths in products} == {(1, 1), (1, bits), (1, 8)}


def test_slices_read_the_weights_again_and_add_their_gradients_up():
    whole, sliced = narrow_step(), narrow_step(slices=3)
    more = {event: sliced[event] - whole[event] for event in whole | sliced if sliced[event] != whole[event]}
    products = {event: n for event, n in more.items() if event.op == "multiply-accumulate"}
    assert {event: n for event, n in more.items() if event not in products} == {
        read("0", "forward", 1): 2 * 800,
        read("0", "backward", 1): 2 * 800 + 2 * 800,  # the weights, and the sums of the slices before
        write("0", "backward", 1): 2 * 800,
    }
    # Sums over a slice are shorter; there are as many products.
    assert products == {mac("0", "backward", 1, 8, 11): -4800, mac("0", "backward", 1, 8, 9): 4800}


def test_updates_inside_backward_add_nothing_up_and_step_every_time():
    once, every = narrow_step(slices=3), narrow_step(slices=3, updates=3)
    assert every[read("0", "backward", 1)] == once[read("0", "backward", 1)] - 2 * 800
    for event, n in once.items():
        if event.phase == "update":
            assert every[event] == 3 * n


def test_a_parameter_that_waits_for_the_batch_is_stepped_once_and_its_gradients_add_up():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = count_step(model, optimizer, (4,), batch_size=6, slices=3, updates={model[0].weight: 3}).counts
    assert counts[read("optimizer", "update", 32)] == 2 * (3 * 12 + 6)
    # Both read the weights of three slices; the second's gradient is read at two of them.
    extra = [counts[read(name, "backward", 32)] - 3 * weights for name, weights in (("0", 12), ("1", 6))]
    assert extra == [6 * (3 + 4), 6 * (2 + 3) + 2 * 6]


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def test_strict_refuses_what_is_not_known_and_else_its_traffic_counts():
    model = nn.Sequential(nn.Linear(4, 3), Doubled())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RunError, match=r"1 \(Doubled\)"):
        count_step(model, optimizer, (4,), batch_size=2, strict=True)
    assert count_step(model, optimizer, (4,), batch_size=2).counts[write("1", "forward", 32)] == 6
    known = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    assert count_step(known, optimizer, (4,), batch_size=2, strict=True).products == 2 * 2 * 12


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
