"""`AccumulatorStore` with a quantizer that centers or projects."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bnn.optim import SGD
from bnn.quantizers import ApproxSign, ReCU, Sign
from bnn.weights import AccumulatorStore, accumulator
from bnn.weights.accumulator import encode

STEPS = {torch.int8: 1 / 128, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}
"""The distance of neighbours just below 1."""
PROJECTIONS = [
    {"tail": "project", "scope": scope, "standardize": standardize, "tau": 0.8}
    for scope in ("layer", "filter")
    for standardize in (True, False)
]


def uncentered(shape: tuple[int, ...], dtype: torch.dtype, quantizer) -> AccumulatorStore:
    """A store whose filters have means of all sizes and standard deviations of 0.05 to 0.3."""
    store = AccumulatorStore(shape, dtype=dtype, quantizer=quantizer)
    generator = torch.Generator().manual_seed(4)
    of_filters = (-1, *[1] * (len(shape) - 1))
    values = torch.randn(shape, generator=generator) * torch.linspace(0.05, 0.3, shape[0]).view(of_filters)
    values += torch.linspace(-0.1, 0.1, shape[0]).view(of_filters)
    with torch.no_grad():
        store.weight.copy_(encode(values, None) if dtype is torch.int8 else values.clamp(-1, 1))
    return store


def doubles(store: AccumulatorStore) -> Tensor:
    return store.trained_value().double().clone()


def mean_of_filters(x: Tensor) -> Tensor:
    return x.mean(tuple(range(1, x.dim())), keepdim=True)


@pytest.mark.parametrize("dtype", STEPS)
@pytest.mark.parametrize("options", PROJECTIONS)
@pytest.mark.parametrize("shape", [(20, 130), (20, 7, 3, 3)])
def test_projects_as_the_quantizer_projects_latent_weights_and_centers(dtype, options, shape):
    store = uncentered(shape, dtype, ReCU(**options))
    before = doubles(store)
    expected = before.clone()
    store.quantizer.project_(expected)
    assert (expected != before).any()
    if options["standardize"]:
        expected -= mean_of_filters(before)
    store.project_()
    # Half a step for the shift, half of it for the bound.
    torch.testing.assert_close(doubles(store), expected, rtol=0, atol=1.001 * STEPS[dtype] + 1e-6)


@pytest.mark.parametrize("dtype", STEPS)
def test_reads_the_signs_about_the_mean_of_each_filter(dtype):
    quantizer = ReCU(tau=1.0)
    store = uncentered((20, 7, 3, 3), dtype, quantizer)
    expected, distance = quantizer(doubles(store)).dense(), doubles(store) - mean_of_filters(doubles(store))
    assert (store.read().dense() != expected).any()
    store.project_()
    clear = distance.abs() > 0.51 * STEPS[dtype]
    assert clear.double().mean() > 0.9
    assert torch.equal(store.read().dense()[clear], expected[clear].float())
    assert torch.equal(store.sign_planes()[0], store.read().packed)


@pytest.mark.parametrize("dtype", STEPS)
def test_means_that_steps_bring_in_do_not_add_up(dtype):
    store = AccumulatorStore((4, 500), dtype=dtype, gain=4.0, quantizer=ReCU(tau=1.0))
    optimizer = SGD(store.parameters(), lr=0.3 * STEPS[dtype])
    for _ in range(50):
        store.weight.accumulate(torch.ones(4, 500))
        optimizer.step()
        optimizer.zero_grad()
        store.project_()
    assert mean_of_filters(doubles(store)).abs().max() < STEPS[dtype]


def test_begins_with_centered_filters(generator):
    store = AccumulatorStore((30, 50), dtype=torch.float32, quantizer=ReCU())
    store.initialize(generator)
    assert mean_of_filters(doubles(store)).abs().max() < 1e-8
    plain = AccumulatorStore((30, 50), dtype=torch.float32)
    plain.initialize(torch.Generator().manual_seed(0))
    torch.testing.assert_close(doubles(store), doubles(plain) - mean_of_filters(doubles(plain)))


@pytest.mark.parametrize("dtype", STEPS)
@pytest.mark.parametrize("options", PROJECTIONS)
def test_is_projected_a_few_filters_at_a_time(dtype, options, monkeypatch):
    whole, parts = (uncentered((20, 130), dtype, ReCU(**options)) for _ in range(2))
    whole.project_()
    monkeypatch.setattr(accumulator, "_CHUNK_ELEMENTS", 300)
    with LargestFloat(parts.weight) as largest:
        parts.project_()
    assert largest.elements == 2 * 130
    torch.testing.assert_close(doubles(parts), doubles(whole), rtol=0, atol=1e-6)


class LargestFloat(TorchDispatchMode):
    """Elements of the largest floating tensor that an operation returns, other than the memory of `known`."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = known.untyped_storage().data_ptr()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if x.is_floating_point() and x.untyped_storage().data_ptr() != self.known:
                self.elements = max(self.elements, x.numel())
        return result


@pytest.mark.parametrize("quantizer", [None, Sign(), ApproxSign(), ReCU(standardize=False)])
@pytest.mark.parametrize("dtype", STEPS)
def test_quantizers_that_neither_center_nor_project_leave_it(quantizer, dtype):
    store = uncentered((20, 130), dtype, quantizer)
    before = doubles(store)
    store.project_()
    assert torch.equal(doubles(store), before)


@pytest.mark.parametrize(("tau", "factor"), [(0.7, 0.5108), (0.8, 0.9163), (0.816, 0.9997), (0.82, 1), (0.99, 1)])
def test_equal_magnitudes_shrink_by_minus_ln_of_2_minus_2_tau_where_that_is_below_1(tau, factor):
    store = AccumulatorStore((3, 40), dtype=torch.float32, quantizer=ReCU(tau=tau, tail="project"))
    values = torch.tensor([0.5, -0.5]).repeat(3, 20)
    with torch.no_grad():
        store.weight.copy_(values)
    store.project_()
    torch.testing.assert_close(store.trained_value(), factor * values, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", STEPS)
def test_is_projected_where_there_are_shapes_alone(dtype):
    store = AccumulatorStore((20, 130), dtype=dtype, quantizer=ReCU(tail="project")).to("meta")
    store.project_()
    assert (store.weight.is_meta, store.weight.dtype) == (True, dtype)
