"""A folded sign is that of the operations, for every whole number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn.export.folding import folded
from bnn.export.program import (
    Add,
    Clamp,
    Map,
    MaxPool,
    Mul,
    MulAdd,
    PReLU,
    Product,
    Program,
    Rounded,
    Signs,
    Thresholds,
    Value,
    Window,
    applied,
)

TAPS, CHANNELS = 50, 4
NUMBERS = torch.arange(-TAPS, TAPS + 1)
VALUES = st.lists(st.floats(-8, 8, width=32) | st.integers(-3, 3).map(float), min_size=CHANNELS, max_size=CHANNELS).map(
    torch.tensor
)
OPERATIONS = st.lists(
    st.one_of(
        VALUES.map(Mul),
        VALUES.map(Add),
        st.builds(MulAdd, VALUES, VALUES),
        VALUES.map(lambda slope: PReLU(slope.abs())),
        st.just(Clamp(-1.0, 1.0)),
        st.sampled_from([Rounded("float16"), Rounded("bfloat16")]),
    ),
    min_size=1,
    max_size=4,
)


def chain(operations, *, pool: bool, kind: str = "bits") -> Program:
    x = Value(0, kind, 2, 2, TAPS)
    y, z = Value(1, "float32", 2, 2, CHANNELS), Value(2, "float32", 1, 1, CHANNELS)
    mapped, bits = Value(3, "float32", 1, 1, CHANNELS), Value(4, "bits", 1, 1, CHANNELS)
    weight = torch.ones(CHANNELS, 1, 1, TAPS, dtype=torch.bool)
    pooled = z if pool else y
    steps = (
        Product(x, y, weight, Window((1, 1))),
        *((MaxPool(y, z, Window((2, 2), (2, 2))),) if pool else ()),
        Map(pooled, mapped, tuple(operations)),
        Signs(mapped, bits),
    )
    return Program(x, (TAPS, 2, 2), steps, bits)


def sign_of(step: Product, numbers):
    """The sign that a folded product gives where the sums of its unfolded one, with a weight of +1, are `numbers`."""
    turned = ~step.weight[:, 0, 0, 0]
    sums = torch.where(turned, -numbers[:, None], numbers[:, None])
    return (sums >= step.tail.least) ^ step.tail.inverted


@pytest.mark.parametrize("pool", [False, True])
@settings(max_examples=30)
@given(operations=OPERATIONS)
def test_a_sign_of_whole_numbers(pool, operations):
    (step,) = folded(chain(operations, pool=pool)).steps
    assert isinstance(step.tail, Thresholds)
    y = applied(operations, NUMBERS.float()[:, None].expand(-1, CHANNELS))
    assert torch.equal(sign_of(step, NUMBERS), y >= 0)
    # The maximum of a window comes first, so that its product cannot be negated.
    assert not pool or bool(step.weight.all())


@settings(max_examples=30)
@given(operations=OPERATIONS)
def test_a_sign_of_floats_beside_its_threshold(operations):
    program = chain(operations, pool=True, kind="float32")
    try:
        (step,) = folded(program).steps
    except ArithmeticError:  # as 2 x 65504 in float16 times 0
        largest = torch.full((CHANNELS,), 65504.0)
        assert any(applied(operations, end).isnan().any() for end in (largest, -largest))
        return
    least = step.tail.least
    for y in (least, torch.nextafter(least, torch.full_like(least, -torch.inf))):
        inside = y.abs() < 65504
        sign = (y >= least) ^ step.tail.inverted
        assert torch.equal(sign[inside], (applied(operations, y) >= 0)[inside])


def test_what_is_not_monotone_stays():
    program = chain([PReLU(torch.tensor([-0.5, 1, 1, 1])), Add(torch.ones(CHANNELS))], pool=False)
    assert [type(step) for step in folded(program).steps] == [Product, Signs]


def test_a_norm_that_is_not_finite_is_refused():
    with pytest.raises(ArithmeticError, match="no finite number"):
        folded(chain([Add(torch.tensor([0, torch.nan, 0, 0]))], pool=False))
