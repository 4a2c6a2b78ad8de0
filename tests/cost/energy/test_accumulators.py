import pytest
import torch

from bnn.cost.energy.accumulators import FloatAccumulator, IntegerAccumulator, bits_of_sums, narrowed
from bnn.cost.energy.ledger import Ledger
from tests.contracts import bits_of, randn


@pytest.mark.parametrize(
    ("mantissa", "exponent", "biases", "error"),
    [(10, 5, (12, 10), 0.014), (7, 4, (12, 10), 0.106), (5, 4, (12, 10), 0.35), (4, 3, (4, 4), 0.65)],
    ids=["M10E5", "M7E4", "M5E4", "M4E3"],
)
def test_errors_of_dot_products(mantissa, exponent, biases, error):
    """Of 1024 normal values each, relative to their size. Of the last it depends on the biases, 0.50 and more."""
    products = (randn(250, 1024) * randn(250, 1024, seed=1)).double()
    exact = products.sum(1)
    product_bias, bias = biases
    accumulated = FloatAccumulator(
        mantissa_bits=mantissa, exponent_bits=exponent, product_bias=product_bias, bias=bias
    ).accumulate(products)
    found = ((accumulated.sums - exact).norm() / exact.norm()).item()
    assert found == pytest.approx(error, rel=0.1)


def test_an_addition_cuts_off_what_has_no_place():
    accumulator = FloatAccumulator(mantissa_bits=2, exponent_bits=4, product_bias=10, bias=10, chunk=100)
    # 1.75 of three bits; 4 + 0.75 has four.
    assert accumulator.accumulate(torch.tensor([1.0, 0.75])).sums.item() == 1.75
    assert accumulator.accumulate(torch.tensor([4.0, 0.75])).sums.item() == 4.0
    assert accumulator.accumulate(torch.tensor([-4.0, -0.75])).sums.item() == -4.0


def test_chunks_keep_small_terms():
    terms = torch.full((64,), 0.25)
    whole, chunked = (FloatAccumulator(mantissa_bits=4, chunk=chunk).accumulate(terms).sums.item() for chunk in (64, 8))
    assert whole == 8.0  # beyond, a quarter has no place
    assert chunked == 16.0


def test_overflow_and_underflow_are_counted_and_masked():
    accumulator = FloatAccumulator(mantissa_bits=4, exponent_bits=3, product_bias=4, bias=4)
    found = accumulator.accumulate(torch.tensor([0.01, 20.0, 20.0, -1.0]))
    largest = (2 - 2.0**-4) * 2.0**4
    assert found.sums.item() == 30.0  # 31 - 1
    assert largest == 31
    assert (found.overflows, found.underflows) == (1, 1)
    assert found.valid.tolist() == [False, True, False, True]


def test_integers_saturate_or_wrap():
    terms = torch.tensor([3.0, 3, 3, -6])
    clamped = IntegerAccumulator(4).accumulate(terms)
    assert (clamped.sums.item(), clamped.overflows) == (1.0, 1)  # 7 - 6
    assert clamped.valid.tolist() == [True, True, False, True]
    wrapped = IntegerAccumulator(4, saturates=False).accumulate(terms)
    assert wrapped.sums.item() == 3.0, "the end result fits"


@pytest.mark.parametrize(("terms", "bits"), [(1, 2), (4608, 14), (298, 10), (0, 1), (255, 9), (256, 10)])
def test_widths_that_hold_sums(terms, bits):
    assert bits_of_sums(terms) == bits


def test_random_products_need_fewer_bits_than_all_could():
    sums = bits_of(60, 4608).dense() @ bits_of(60, 4608, seed=1).dense().t()
    assert bits_of_sums(float(sums.abs().max())) == 10
    exact = IntegerAccumulator(14).accumulate(bits_of(3, 4608).dense() * bits_of(3, 4608, seed=1).dense())
    assert exact.overflows == 0


def test_the_ledger_takes_measured_widths_of_forward_products():
    ledger = Ledger()
    ledger.multiply_accumulates("a", "forward", (1, 1), 10, terms=4608)
    ledger.multiply_accumulates("a", "backward", (1, 8), 20, terms=100)
    ledger.multiply_accumulates("b", "forward", (1, 1), 30, terms=4608)
    ledger.moves("read", "a", "forward", 1, 5)
    found = narrowed(ledger, {"a": 10})
    widths = {(event.where, event.phase): event.bits for event in found.counts if event.op == "multiply-accumulate"}
    assert widths["a", "forward"] == (1, 1, 10)
    assert widths["b", "forward"] == (1, 1, 14)
    assert found.counts.total() == ledger.counts.total()


@pytest.mark.parametrize("options", [{"chunk": 0}, {"mantissa_bits": 0}, {"mantissa_bits": 24}, {"exponent_bits": 9}])
def test_widths_of_floats_are_checked(options):
    with pytest.raises(ValueError, match=r"1 to 23 bits of mantissa, 1 to 8 of exponent and chunks of at least 1, got"):
        FloatAccumulator(**options)


@pytest.mark.parametrize("bits", [1, 49])
def test_widths_of_integers_are_checked(bits):
    with pytest.raises(ValueError, match=f"^an integer accumulator has 2 to 48 bits, got {bits}$"):
        IntegerAccumulator(bits)
