"""The step of Adam by signs: native equals the specification, which follows the formula and rounds well on average."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import steps
from bnn.ops.packing import pack, unpack

OPTIONS = {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "hysteresis": 0.0, "step": 3, "seed": 5}


def operands(rows, n, *, smallest=-20.0):
    """Weight, mean, root and packed signs; magnitudes from 2^smallest to 1."""
    generator = torch.Generator().manual_seed(rows * 1000 + n)

    def values():
        size = 2 ** (torch.rand((rows, n), generator=generator) * smallest)
        return size.copysign(torch.randn((rows, n), generator=generator)).half()

    return values(), values(), values().abs(), pack(torch.randn((rows, n), generator=generator))


def copies(tensors):
    return [x.clone() for x in tensors]


def equal_bits(ones, others):
    return all(
        torch.equal(one.view(torch.int16), other.view(torch.int16)) for one, other in zip(ones, others, strict=True)
    )


@pytest.mark.usefixtures("isa", "threads")
class TestNative:
    @given(
        rows=st.integers(0, 5),
        n=st.integers(1, 700),
        lr=st.sampled_from([0.0, 1e-7, 1e-3, 0.01, 3.0]),
        betas=st.tuples(st.floats(0, 0.9999), st.floats(0, 0.99999)),
        eps=st.sampled_from([0.0, 1e-8, 0.1]),
        hysteresis=st.sampled_from([0.0, 1e-3, 0.05, 1.0]),
        step=st.integers(1, 10_000),
        seed=st.integers(0, 2**62),
        threads=st.sampled_from([1, 2, 5]),
    )
    def test_equals_the_specification(self, rows, n, lr, betas, eps, hysteresis, step, seed, threads):
        *expected, signs = operands(rows, n)
        stepped = copies(expected)
        steps.adam_by_signs(*expected, signs, lr, list(betas), eps, hysteresis, step, seed)
        torch.set_num_threads(threads)
        torch.ops.bnn.adam_by_signs(*stepped, signs, lr, list(betas), eps, hysteresis, step, seed)
        assert equal_bits(stepped, expected)

    def test_large_tensors(self):
        *expected, signs = operands(3, 100_001)
        stepped = copies(expected)
        steps.adam_by_signs(*expected, signs, *OPTIONS.values())
        torch.set_num_threads(3)
        torch.ops.bnn.adam_by_signs(*stepped, signs, *OPTIONS.values())
        assert equal_bits(stepped, expected)

    @pytest.mark.parametrize("of", [0, 1, 2])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_not_finite_is_found_afterwards(self, of, value):
        *tensors, signs = operands(2, 21)
        tensors[of][0, 3] = tensors[of][1, 20] = value
        if of == 0 and value == math.inf:
            tensors[1][tensors[0].isinf()] = math.nan  # by itself it would be clamped to 1
        expected = copies(tensors)
        steps.adam_by_signs(*expected, signs, *OPTIONS.values())
        torch.ops.bnn.adam_by_signs(*tensors, signs, *OPTIONS.values())
        for stepped, specified in zip(tensors, expected, strict=True):
            assert torch.allclose(stepped, specified, rtol=0, atol=0, equal_nan=True)
        lost = torch.stack([x.isnan() for x in tensors]).any(dim=0)
        assert lost.nonzero().tolist() == [[0, 3], [1, 20]]

    def test_every_number_of_float16(self):
        """Decays near 1 leave means near where they are; without a rate weights stay."""
        every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
        finite = every[every.isfinite()].view(1, -1)
        expected = [finite.clone(), finite.clone(), finite.abs()]
        stepped, signs = copies(expected), pack(-finite)
        options = (0.0, [1 - 1e-7, 1 - 1e-7], 1e-8, 0.5, 7, 1)
        steps.adam_by_signs(*expected, signs, *options)
        torch.ops.bnn.adam_by_signs(*stepped, signs, *options)
        assert equal_bits(stepped, expected)
        assert torch.equal(stepped[0], finite.clamp(-1, 1))


def in_double(weight, mean, root, gradient, *, lr, betas, eps, step, **_):
    """Algorithm 1 of the paper as it stands, in float64."""
    beta1, beta2 = betas
    gradient = gradient.double()
    mean = beta1 * mean.double() + (1 - beta1) * gradient
    square = beta2 * root.double().square() + (1 - beta2) * gradient.square()
    corrected = (square / (1 - beta2**step)).sqrt()
    weight = weight.double() - lr * (mean / (1 - beta1**step)) / (corrected + eps)
    return weight.clamp(-1, 1), mean, square.sqrt()


def spacing(x):
    """Of the numbers of float16 around a float64."""
    return 2.0 ** (torch.frexp(x).exponent - 11.0).clamp(min=-24)


@pytest.mark.parametrize("options", [OPTIONS, OPTIONS | {"eps": 0.1, "step": 1}, OPTIONS | {"betas": [0.0, 0.5]}])
def test_every_result_is_a_neighbour_of_the_formula_s(options):
    *tensors, signs = operands(4, 5000)
    exact = in_double(*tensors, unpack(signs, tensors[0].shape[1], torch.float64), **options)
    steps.adam_by_signs(*tensors, signs, *options.values())
    for x, truth in zip(tensors, exact, strict=True):
        assert ((x.double() - truth).abs() < 1.01 * spacing(truth)).all()


@pytest.mark.parametrize("size", [0.7, 2.0**-9, 2.0**-14 * 0.99, 1.3 * 2.0**-24])
def test_is_right_on_average(size):
    """Also where float16 is denormal, and for moves much below its spacing."""
    count = 200_000
    tensors = [torch.full((1, count), size).half() for _ in range(3)]
    signs = pack(torch.ones(1, count))
    part = 0.01 * spacing(torch.tensor(size)).item()
    options = {"lr": part, "betas": [1 - part, 1 - part], "eps": 1e-8, "hysteresis": 0.0, "step": 10, "seed": 11}
    exact = in_double(*tensors, unpack(signs, tensors[0].shape[1], torch.float64), **options)
    steps.adam_by_signs(*tensors, signs, *options.values())
    for x, truth in zip(tensors, exact, strict=True):
        assert x.unique().numel() == 2, "the two neighbours"
        # The standard error of a mean of 200,000 choices between two neighbours is below 0.0012 of their distance.
        assert abs(x.double().mean() - truth[0, 0]) < 0.006 * spacing(truth[0, 0])


def test_the_three_results_are_rounded_independently():
    count = 100_000
    tensors = [torch.full((1, count), 0.6).half() for _ in range(3)]
    steps.adam_by_signs(*tensors, pack(torch.ones(1, count)), *OPTIONS.values())
    up = torch.cat([(x == x.max()).float() for x in tensors])
    # Nor do those of two neighbours depend on each other.
    assert torch.corrcoef(torch.cat([up[:, 1:], up[:, :-1]])).triu(1).abs().max() < 0.02


def test_the_weight_stays_within_its_range():
    tensors = [torch.tensor([[1.0, -1.0, 0.9]]).half() for _ in range(2)]
    weight, mean, root = *tensors, torch.ones(1, 3).half()
    steps.adam_by_signs(
        weight, mean.neg_(), root, pack(torch.tensor([[-1.0, 1.0, -1.0]])), 5.0, [0.9, 0.9], 1e-8, 0.0, 9, 0
    )
    assert weight.tolist() == [[1, -1, 1]]


def test_a_weight_that_changes_its_sign_goes_beyond_zero():
    weight = torch.tensor([[0.01, -0.01, 0.2, -0.2, 0.0]]).half()
    mean, root = (torch.zeros(1, 5).half() for _ in range(2))
    signs = pack(torch.tensor([[1.0, -1, 1, -1, 1]]))
    steps.adam_by_signs(weight, mean, root, signs, 0.03125, [0.0, 0.0], 1e-8, 0.125, 1, 0)
    assert weight[0, :2].tolist() == [-0.125, 0.125]
    assert weight[0, 4].item() == -0.125
    torch.testing.assert_close(weight[0, 2:4].float(), torch.tensor([0.16875, -0.16875]), atol=2e-4, rtol=0)


def test_another_seed_rounds_otherwise():
    *one, signs = operands(2, 1000)
    other = copies(one)
    steps.adam_by_signs(*one, signs, *OPTIONS.values())
    steps.adam_by_signs(*other, signs, *(OPTIONS | {"seed": 6}).values())
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(2, 8)}, "contiguous float16 .* got torch.float32"),
        ({"mean": torch.zeros(2, 9).half()}, r"of one shape, got torch.float16 \[2, 9\]"),
        ({"root": torch.zeros(8, 2).half().t()}, "contiguous"),
        ({"signs": torch.zeros(2, 2, dtype=torch.uint8)}, "its signs are packed, got torch.uint8"),
        ({"lr": math.nan}, "got lr nan"),
        ({"betas": [0.9, 1.0]}, r"betas lie in \[0, 1\)"),
        ({"eps": -1.0}, "at least 0"),
        ({"hysteresis": 1.5}, r"lies in 0\.\.1"),
        ({"step": 0}, "steps count from 1"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    names = ("weight", "mean", "root")
    fitting = {name: torch.zeros(2, 8).half() for name in names} | {"signs": torch.zeros(2, 1, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=message):
        torch.ops.bnn.adam_by_signs(*(fitting | OPTIONS | change).values())
