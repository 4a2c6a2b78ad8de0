"""What every quantizer of gradients promises, whoever adds one."""

import copy
import math

import pytest
import torch

import bnn.quantizers.gradients
from bnn.errors import NonFiniteError
from bnn.quantizers import Quantizer
from bnn.quantizers.gradients import (
    BFloat16Gradient,
    FloatGradient,
    GradientQuantizer,
    Int8Gradient,
    LognormalPruning,
    PowerOfTwoGradient,
    SamplePruning,
    SignGradient,
)
from tests.contracts import concrete_classes, dense

MAKE = {
    "sign": lambda generator: SignGradient(),
    "packed sign": lambda generator: SignGradient(scale="none", packed=True, generator=generator),
    "power of two": lambda generator: PowerOfTwoGradient(),
    "stochastic power of two": lambda generator: PowerOfTwoGradient(generator=generator),
    "int8": lambda generator: Int8Gradient(),
    "stochastic int8": lambda generator: Int8Gradient(generator=generator),
    "clipped int8": lambda generator: Int8Gradient(quantile=0.99),
    "bfloat16": lambda generator: BFloat16Gradient(),
    "float": lambda generator: FloatGradient(),
    "stochastic float": lambda generator: FloatGradient(bits=6, generator=generator),
    "pruning": lambda generator: LognormalPruning(generator=generator),
    "sample pruning": lambda generator: SamplePruning(generator=generator),
}
FOUND = concrete_classes(bnn.quantizers.gradients, GradientQuantizer)
# A class that needs nothing but a generator needs no entry above.
LISTED = {type(make(torch.Generator())) for make in MAKE.values()}
MAKE |= {cls.__name__: lambda generator, cls=cls: cls(generator=generator) for cls in FOUND if cls not in LISTED}
UNBIASED = ["stochastic power of two", "stochastic int8", "stochastic float", "pruning", "sample pruning"]

kinds = pytest.mark.parametrize("kind", list(MAKE))


def test_every_class_is_tested(generator):
    assert {type(make(generator)) for make in MAKE.values()} == set(FOUND)
    assert not any(issubclass(cls, Quantizer) for cls in FOUND)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(4, 60), (6, 5, 3, 3), (7,)])
def test_keeps_shape_dtype_and_signs_and_leaves_its_input(kind, dtype, shape, generator):
    gradient = torch.randn(shape, generator=generator).to(dtype)
    before = gradient.clone()
    q = MAKE[kind](generator)(gradient)
    of_its_own = MAKE[kind](generator).dtype
    assert (q.shape, q.dtype) == (gradient.shape, of_its_own or dtype)
    assert torch.equal(gradient, before)
    assert q is not gradient or dtype is of_its_own
    assert (dense(q) * gradient >= 0).all()
    assert dense(q).isfinite().all()


@kinds
def test_memory_format_is_kept(kind, generator):
    gradient = torch.randn((6, 5, 3, 3), generator=generator).contiguous(memory_format=torch.channels_last)
    assert MAKE[kind](generator)(gradient).is_contiguous(memory_format=torch.channels_last)


@kinds
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_refuses_what_is_not_finite(kind, bad, generator):
    gradient = torch.randn((4, 6), generator=generator)
    gradient[1, 2] = bad
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        MAKE[kind](generator)(gradient)


@kinds
@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_zeros_stay_zero_or_become_signs(kind, shape, generator):
    q = dense(MAKE[kind](generator)(torch.zeros(shape)))
    assert q.shape == shape
    assert (q.abs() == 1).all() if kind == "packed sign" else not q.any()


@kinds
def test_the_generator_alone_decides(kind, generator):
    gradient = torch.randn((20, 30), generator=generator)
    gradient[0] = 0
    state = torch.get_rng_state()
    one, other, different = (dense(MAKE[kind](torch.Generator().manual_seed(s))(gradient)) for s in (1, 1, 2))
    assert torch.equal(one, other)
    assert torch.equal(one, different) == (MAKE[kind](generator).generator is None)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


@pytest.mark.parametrize("kind", UNBIASED)
def test_is_right_on_average(kind, generator):
    gradient = torch.randn(40, generator=generator).mul(2).exp() * torch.randn(40, generator=generator).sign()
    quantizer = MAKE[kind](generator)
    draws = torch.stack([quantizer(gradient) for _ in range(2000)]).double()
    error = (draws.mean(0) - gradient).abs()
    assert (error <= 5 * draws.std(0) / 2000**0.5 + 1e-5 * gradient.abs()).all()


@kinds
def test_says_whether_the_two_products_see_different_gradients(kind, generator):
    gradient = torch.randn((12, 5), generator=generator)
    one, other = (MAKE[kind](torch.Generator().manual_seed(3)) for _ in range(2))
    same = torch.equal(dense(one(gradient)), dense(other.for_weight(gradient)))
    assert not one.bifurcates or kind == "BackwardScale" or not same
    assert one.bifurcates or same


@kinds
def test_copies_share_the_generator_alone(kind, generator):
    quantizer = MAKE[kind](generator)
    copied = copy.deepcopy(quantizer)
    assert type(copied) is type(quantizer)
    assert copied is not quantizer
    assert copied.generator is quantizer.generator
    copied.storage_bits = 99
    assert quantizer.storage_bits != 99


@kinds
def test_has_no_state_and_tells_its_name(kind, generator):
    quantizer = MAKE[kind](generator)
    assert not quantizer.state_dict()
    assert repr(quantizer).startswith(type(quantizer).__name__ + "(")
