"""The passes of a batch norm: their specifications against float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.quantizers import ApproxSign
from tests.contracts import randn
from tests.ops.batch_norms import (
    Norm,
    channel_dims,
    code_of,
    codes_of,
    edge_lists,
    gradient_inputs,
    norm_clamp,
    norm_of,
    quarters,
    seeds,
    shapes,
    slope_lists,
    slopes_of,
    spread,
    statistics,
    terms_of,
    whole,
)
from tests.ops.comparison import examples

bnn = torch.ops.bnn


@given(shape=shapes.filter(lambda shape: math.prod(shape) > shape[1]), plain=st.booleans(), seed=seeds)
@examples
def test_statistics_follow_the_formula(shape: tuple[int, ...], plain: bool, seed: int) -> None:
    y, norm = whole(shape, seed), norm_of(shape[1], seed, plain=plain)
    moments, affine, running_mean, running_var = statistics(y, norm)
    wide, dims = y.double(), channel_dims(y)
    assert torch.equal(moments[0], wide.mean(dims).float())  # the sums of whole numbers are exact
    assert torch.equal(statistics(y.half(), norm)[0], moments)
    scale, gamma = (torch.ones(shape[1]) if x is None else x for x in norm[:2])
    z = wide * spread(scale.double(), y)
    layer = torch.nn.functional.batch_norm
    running = [norm.running_mean.double(), norm.running_var.double()]
    of_norm = (None if norm.gamma is None else gamma.double(), None if norm.beta is None else norm.beta.double())
    expected = layer(z, *running, *of_norm, training=True, momentum=norm.momentum, eps=norm.eps)
    torch.testing.assert_close([running_mean, running_var], [x.float() for x in running], rtol=1e-6, atol=1e-6)
    deviation = (z.var(dims, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(moments[1], (1 / deviation).float(), rtol=1e-6, atol=0)
    got = wide * spread(affine[0].double(), y) + spread(affine[1].double(), y)
    # Factor and offset are each rounded a few times.
    allowed = 2**-21 * (wide.abs() * spread(affine[0].abs(), y) + spread(affine[1].abs(), y)).amax(dims) + 1e-6
    assert ((got - expected).abs().amax(dims) <= allowed).all()


def test_the_variance_of_a_constant_channel_is_not_below_zero() -> None:
    norm = Norm(None, None, None, 2.0**-10, torch.zeros(3), torch.zeros(3), 1.0)
    for value in (7.0, -3.0, 0.0):  # squares that float32 holds
        moments, _, _, running_var = statistics(torch.full((9, 3), value), norm)
        assert moments.tolist() == [[value] * 3, [2.0**5] * 3]
        assert running_var.tolist() == [0.0] * 3
    values = 1000 + torch.arange(500.0) / 7  # squares that it rounds, down as often as up
    norm = Norm(None, None, None, 0.0, torch.zeros(500), torch.zeros(500), 1.0)
    variance = statistics(values.expand(10, -1), norm)[-1]
    assert (variance >= 0).all()
    assert (variance == 0).any()
    assert (variance <= 2**-22 * values.square()).all()


@given(shape=shapes, seed=seeds, bounds=st.sampled_from([(-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)]))
@examples
def test_clamped_norms_follow_the_formula(shape: tuple[int, ...], seed: int, bounds: tuple[float, float]) -> None:
    y, shortcut = whole(shape, seed), quarters(shape, seed + 1) / 4
    # Powers of two and quarters: every step is exact, and so are ties with the bounds.
    factor, offset = 2.0 ** -(torch.arange(shape[1]) % 7), quarters([shape[1]], seed + 2) / 4
    for added in (None, shortcut):
        out, codes = norm_clamp(y, factor, offset, added, *bounds)
        x = y.double() * spread(factor, y) + spread(offset, y) + (0 if added is None else added.double())
        assert torch.equal(out.double(), x.clamp(*bounds))
        assert torch.equal(code_of(codes, y), 1 - ((x > bounds[0]) & (x < bounds[1])).double())
        rounded, _ = norm_clamp(y.half(), factor, offset, added, *bounds)
        assert torch.equal(rounded, out.bfloat16())


@given(shape=shapes, seed=seeds, edges=edge_lists)
@examples
def test_signs_and_codes_follow_the_formula(shape: tuple[int, ...], seed: int, edges: tuple[float, ...]) -> None:
    y = whole(shape, seed)
    factor, offset = 2.0 ** -(torch.arange(shape[1]) % 9), quarters([shape[1]], seed + 2) / 4
    for affine in ((None, None), (factor, offset)):
        bits, codes = bnn.sign_codes(y, *affine, list(edges))
        x = y.double() if affine[0] is None else y.double() * spread(factor, y) + spread(offset, y)
        assert torch.equal(code_of(bits[None], y), (x >= 0).double())
        beyond = sum((x.abs() > torch.tensor(edge).double()).double() for edge in edges)
        assert torch.equal(code_of(codes, y), beyond)


def test_a_value_at_an_edge_lies_before_it_and_zeros_are_plus_one() -> None:
    edges = list(ApproxSign().slope_steps.edges)
    exact = torch.tensor(edges)
    y = torch.cat([exact, exact.nextafter(torch.tensor(2.0)), -exact, torch.tensor([0.0, -0.0, 1.0])])[None]
    bits, codes = bnn.sign_codes(y, None, None, edges)
    assert code_of(codes, y).flatten().tolist() == [0, 1, 2, 1, 2, 3, 0, 1, 2, 0, 0, 3]
    assert code_of(bits[None], y).flatten().tolist() == [1] * 6 + [0] * 3 + [1] * 3


@given(shape=shapes, slopes=slope_lists, plain=st.booleans(), seed=seeds)
@examples
def test_terms_of_a_gradient_follow_the_formula(
    shape: tuple[int, ...], slopes: tuple[float, ...], plain: bool, seed: int
) -> None:
    grad, codes, _, y = gradient_inputs(shape, slopes, seed)
    norm, dims, count = norm_of(shape[1], seed, plain=plain), channel_dims(y), y.numel() // shape[1]
    moments = torch.stack((quarters([shape[1]], seed + 4), 0.1 + randn(shape[1], seed=seed).abs()))
    operands = (grad, codes, list(slopes), y)
    terms, bound, of_parameters = bnn.norm_gradient_terms(*operands, moments, norm.scale, norm.gamma, norm.eps)
    assert [x.dtype for x in (terms, bound, of_parameters)] == [torch.float32] * 3
    # A slope of a third is rounded, and so is its product.
    passed = (grad.double() * slopes_of(codes, slopes, grad)).float().double()
    mean, inverse = moments.double()
    scale, gamma = (torch.ones(shape[1]).double() if x is None else x.double() for x in norm[:2])
    centred = y.double() - spread(mean, y)
    sum_, along = passed.sum(dims), (passed * centred).float().double().sum(dims)
    varies = (moments[1] < torch.tensor(norm.eps, dtype=torch.float64).rsqrt().float()).double()
    x_along = scale * inverse * along  # sum of g x, with the normalised x
    torch.testing.assert_close(
        of_parameters,
        torch.stack((gamma * norm.eps * inverse**3 * along, x_along, sum_)).float(),
        rtol=1e-6,
        atol=0,
    )
    # gamma scale / deviation (g - mean(g) - x mean(g x)), where a channel varies
    exact = passed - spread(sum_ / count, y) - centred * spread(scale * inverse * x_along / count, y)
    exact = exact * spread(gamma * scale * inverse * varies, y)
    got = bnn.norm_gradient(*operands, terms)
    size = (terms[0].abs() * 130 + terms[1].abs() * 70 + terms[2].abs()).double()
    assert ((got.double() - exact).abs() <= 2**-20 * spread(size, y)).all()
    assert got.abs().amax() <= bound * (1 + 1e-5)


def test_a_channel_that_does_not_vary_has_no_gradient() -> None:
    grad, y = quarters((6, 3), 1), whole((6, 3), 2)
    y[:, 1] = 5
    norm = Norm(None, None, None, 1e-5, torch.zeros(3), torch.ones(3), 0.1)
    moments = statistics(y, norm)[0]
    terms, bound, _ = bnn.norm_gradient_terms(grad, codes_of((6, 3), (1.0,), 0), [1.0], y, moments, None, None, 1e-5)
    assert not terms[:, 1].any()
    assert terms[:, ::2].all()
    assert 0 < bound < 100


@given(shape=shapes, slopes=slope_lists, seed=seeds)
@examples
def test_gradients_follow_the_formula(shape: tuple[int, ...], slopes: tuple[float, ...], seed: int) -> None:
    inputs = gradient_inputs(shape, slopes, seed)
    of_channel = terms_of(shape[1], seed)
    of_grad, of_y, constant = of_channel
    grad, codes, _, y = inputs
    passed = grad.double() * slopes_of(codes, slopes, grad)
    terms = passed * spread(of_grad, y), y.double() * spread(of_y, y), spread(constant.double(), y)
    got = bnn.norm_gradient(*inputs, of_channel)
    # Each product and each sum is rounded once, and a slope and what it passes are.
    allowed = 3 * 2**-24 * sum(term.abs() for term in terms)
    assert ((got.double() - sum(terms)).abs() <= allowed).all()
    assert torch.equal(bnn.pass_slopes(*inputs[:3]), passed.float())

    bound = sum(term.abs() for term in terms).amax().float()
    q, scale = bnn.norm_gradient_integers(*inputs, of_channel, bound, 7, seed)
    assert (q.dtype, scale.item()) == (torch.int8, pytest.approx(bound.item() / 7, rel=1e-6))
    assert ((q.double() * scale - got.double()).abs() <= scale * (1 + 1e-5)).all()
    assert q.abs().max() <= 7


def test_integers_are_the_gradient_on_average() -> None:
    inputs = (*gradient_inputs((4, 5, 3, 3), (1.0, 0.5), 0), terms_of(5, 1))
    grad = bnn.norm_gradient(*inputs)
    bound, draws = 2 * grad.abs().amax(), 400
    rounded = [bnn.norm_gradient_integers(*inputs, bound, 3, seed) for seed in range(draws)]
    mean = torch.stack([q * scale for q, scale in rounded]).mean(0)
    # A uniform number's rounding has a deviation of at most half a step; 5 of those of the mean.
    assert ((mean - grad).abs() < 5 * (bound / 3) / 2 / math.sqrt(draws)).all()
