"""The block that recomputes its product against the formula in float64."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.layers import recomputed
from bnn.quantizers import Sign
from tests.contracts import dense, randn
from tests.layers.blocks import (
    CASES,
    Formula,
    Spy,
    block_of,
    cases,
    channel_dims,
    conv,
    linear,
    parts_of,
    rounding,
    scale_of,
    shortcut_of,
)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, one_by_one: None) -> Spy:
    spy = Spy()
    monkeypatch.setattr(recomputed, "_bnn", spy)
    return spy


@cases
def test_cases_recompute(case):
    block = case.make()
    assert block.obstacle is None
    assert block.is_fused


@cases
def test_result_follows_the_formula(case):
    block, x = case.make(), case.x()
    shortcut = shortcut_of(case, block, x)
    formula = Formula(block, x, shortcut)
    out = block(x, shortcut)
    assert isinstance(out, BitTensor) == (block.output_steps is not None)
    assert out.dtype == (torch.bfloat16 if x.dim() == 4 or isinstance(out, BitTensor) else torch.float32)
    got, expected = dense(out).double(), formula.out
    assert got.shape == expected.shape
    if isinstance(out, BitTensor):
        assert torch.equal(got[~formula.at_an_edge(block)], expected[~formula.at_an_edge(block)])
    else:
        # float32 rounds factor, product, offset and sums once each, and bfloat16 the result.
        rounded = 2**-8 * expected.abs() if out.dtype is torch.bfloat16 else 0
        assert ((got - expected).abs() <= rounded + 1e-5).all()


@cases
def test_running_statistics_are_those_of_torch(case):
    block, x = case.make(), case.x()
    shortcut = shortcut_of(case, block, x)
    norm, product = copy.deepcopy(block.norm), None
    for _ in range(3):
        block(x, shortcut)
        formula = Formula(block, x, shortcut)
        product = formula.rectified.float()
        scale = getattr(block.product, "learned_scale", None)
        scale = scale if scale is None or block.pool is None else scale.abs()
        norm(product if scale is None else product * scale.view(1, -1, *[1] * (product.dim() - 2)))
    assert block.norm.num_batches_tracked == 3
    torch.testing.assert_close(block.norm.running_mean, norm.running_mean, rtol=1e-5, atol=1e-6)
    # The square of a real product is rounded before it is added up.
    torch.testing.assert_close(block.norm.running_var, norm.running_var, rtol=1e-5, atol=1e-6)


@cases
def test_gradients_follow_the_formula(case, spy):
    block, x = case.make(), case.x()
    shortcut = shortcut_of(case, block, x)
    formula = Formula(block, x, shortcut)
    grad = randn(*formula.out.shape, seed=6).bfloat16()
    grad[formula.at_an_edge(block)] = 0
    formula.out.backward(grad.double())
    expected = {name: leaf.grad for name, leaf in formula.leaves.items()}

    spy.calls.clear()
    x = x.clone().requires_grad_()
    shortcut = x if case.shortcut == "input" else None if shortcut is None else shortcut.clone().requires_grad_()
    out = block(x, shortcut)
    out.backward(grad.to(out.dtype))

    is_binary = hasattr(block.product, "store")
    by_rows = spy.has_called("normed_conv2d_backward")
    real = "normed_conv2d_backward" if by_rows else "norm_gradient"
    args, result = spy.called("norm_gradient_integers" if is_binary else real)
    slopes = max(abs(slope) for slope in args[2])
    if not by_rows:
        # The gradient of the product, before it is rounded.
        exact = torch.ops.bnn.norm_gradient(*args[:5])
        of_grad, of_y, constant = (of.view(1, -1, *[1] * (exact.dim() - 2)) for of in args[4])
        terms = (of_grad * args[0].float()).abs() * slopes + (of_y * args[3].float()).abs() + constant.abs()
        # Of each term, float32 rounds a deviation, its powers, a factor, a product and a sum.
        assert ((exact.double() - formula.rectified.grad).abs() <= 2**-20 * terms + 1e-12).all()

    if is_binary:
        q, scale = result
        bound = args[5]
        assert exact.abs().amax() <= bound * (1 + 1e-6)
        assert bound <= 4 * exact.abs().amax()
        assert scale.item() == pytest.approx(bound.item() / 127, rel=1e-6)
        exact = exact * (formula.y > 0) if block.rectifies else exact
        assert ((q * scale - exact).abs() <= scale * 1.0001).all()
        # The gradient of the rest, from the integers that were drawn.
        formula = Formula(
            block, x.detach(), None if shortcut is None else shortcut.detach(), q.double() * scale.double()
        )
        formula.out.backward(grad.double())
        expected = {**expected, **{name: formula.leaves[name].grad for name in ("x", "weight")}}
    weight = block.product.store.weight if is_binary else block.product.weight
    # Without its lower half, a product's gradient does not cancel what rounding the constant of a channel adds.
    absolute = 1e-5 if block.rectifies else 1e-6
    torch.testing.assert_close(weight.grad.double(), expected["weight"], rtol=1e-5, atol=absolute)

    through, passed = expected["x"], expected.get("shortcut")
    added = passed if case.shortcut == "input" else torch.zeros_like(through)
    # bfloat16 rounds what is passed by, what comes through the product, and their sum.
    assert x.grad.dtype == x.dtype
    allowed = 2**-7 * (through.abs() + added.abs()) + 1e-6
    assert ((x.grad.double() - through - added).abs() <= allowed).all()
    if case.shortcut == "other":
        assert shortcut.grad.dtype is shortcut.dtype
        assert ((shortcut.grad.double() - passed).abs() <= 2**-8 * passed.abs()).all()

    # Sums of terms that float32 has rounded a few times each.
    centred = (formula.y.detach() - formula.y.detach().mean(dims := channel_dims(out), keepdim=True)).abs()
    size = (centred * grad.double().abs() * slopes).sum(dims) / (formula.variance.detach() + block.norm.eps).sqrt()
    for name, parameter in (("gamma", block.norm.weight), ("beta", block.norm.bias), ("scale", scale_of(block))):
        if parameter is not None:
            near = 2**-20 * (size + grad.double().abs().sum(dims))
            assert ((parameter.grad.double() - expected[name]).abs() <= near).all(), name


@cases
def test_backward_forms_the_same_product_again(case, monkeypatch, one_by_one):
    block, x = case.make(), case.x()
    shortcut = shortcut_of(case, block, x)
    formed = []

    def keeping(*args):
        y, *rest = original(*args)
        formed.append((y.clone(), *rest))  # the result takes its place
        return y, *rest

    original = recomputed.product
    monkeypatch.setattr(recomputed, "product", keeping)
    out = block(x.requires_grad_(), shortcut)
    out.backward(torch.ones(out.shape, dtype=out.dtype))
    if block.keeps_product(x):  # a linear layer of a real input
        assert (len(formed), formed[0][0].dim()) == (1, 2)
        return
    if case is CASES["real stem"]:  # row by row, by tests/ops/test_normed_conv.py
        assert len(formed) == 1
        return
    (y, choices, shape), (again, choices_again, shape_again) = formed
    assert torch.equal(y, again)
    assert shape == shape_again
    assert (choices is None) == (block.pool is None)
    assert choices is None or torch.equal(choices, choices_again)
    expected = Formula(block, x.detach(), None).rectified
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-6)
    if hasattr(block.product, "store"):
        assert torch.equal(y.double(), expected), "products with bits are exact"


@cases
@pytest.mark.parametrize("training", [True, False])
def test_the_parts_called_one_after_the_other_give_the_same(case, training):
    block, x = case.make(), case.x()
    shortcut = shortcut_of(case, block, x)
    block(x, shortcut)  # so that the running statistics are not those of the start
    block.train(training)
    separate = copy.deepcopy(block)
    separate.recompute = False
    assert not separate.is_fused
    with torch.no_grad():
        out, expected = block(x, shortcut), separate(x, shortcut)
        same = parts_of(separate.eval(), x, shortcut) if not training else None
    assert type(out) is type(expected)
    if same is not None:
        assert torch.equal(dense(same), dense(expected))
    if isinstance(out, BitTensor):
        agree = dense(out).float() == dense(expected).float()
        assert agree.float().mean() > 0.999, "but for values that rounding moves over 0"
    else:
        # A product with a real weight is float16 where it is formed again.
        is_exact = hasattr(block.product, "store")
        torch.testing.assert_close(out.float(), expected.float(), rtol=2**-7, atol=2e-5 if is_exact else 2**-8)


@cases
def test_evaluation_takes_few_rows_at_a_time(case, monkeypatch):
    block, x = case.make(), case.x()
    shortcut = shortcut_of(case, block, x)
    block(x, shortcut)
    block.eval()
    with torch.no_grad():
        whole = block(x, shortcut)
        monkeypatch.setattr(recomputed, "_CHUNK_ELEMENTS", 2 * block.product_shape(x)[1:].numel() + 1)
        sliced = block(x, shortcut)
    assert type(sliced) is type(whole)
    torch.testing.assert_close(dense(sliced), dense(whole), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: conv(4, 4, padding=1), lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False)])
@pytest.mark.parametrize("activation", [None, nn.Hardtanh()])
@pytest.mark.parametrize("own", [True, False])
def test_the_gradient_of_an_input_that_is_handed_on_is_added(make, activation, own):
    """As if the input were used twice, with one rounding fewer; `own`: it is the block's shortcut, too."""
    x, later = (0.5 * randn(3, 4, 6, 5)).bfloat16(), randn(3, 4, 6, 5, seed=2).bfloat16()
    grad, gradients = randn(3, 4, 6, 5, seed=1).bfloat16(), []
    for with_input in (True, False):
        torch.manual_seed(0)
        block, leaf = block_of(make(), activation=activation), x.clone().requires_grad_()
        shortcut = leaf if own else None
        out, same = block(leaf, shortcut, with_input=True) if with_input else (block(leaf, shortcut), leaf)
        assert torch.equal(same, leaf)
        torch.autograd.backward([out, same * later], [grad, torch.ones_like(grad)])
        gradients.append(leaf.grad.float())
    assert (
        (gradients[0] - gradients[1]).abs() <= 2**-6 * (gradients[1].abs() + later.float().abs() + grad.abs())
    ).all()


def test_an_input_that_is_handed_on_alone_gets_its_gradient():
    x = randn(3, 4, 6, 5).requires_grad_()
    _, same = block_of(conv(4, 4, padding=1))(x, with_input=True)
    (2 * same).sum().backward()
    assert (x.grad == 2).all()
    block = block_of(conv(4, 4, padding=1)).eval()
    assert block(x, with_input=True)[1] is x


def test_an_empty_batch_is_evaluated_to_an_empty_result():
    with torch.no_grad():
        assert block_of(conv(3, 8)).eval()(torch.empty(0, 3, 6, 6)).shape == (0, 8, 4, 4)
        bits = block_of(conv(3, 8), activation=Sign()).eval()(torch.empty(0, 3, 6, 6))
        assert isinstance(bits, BitTensor)
        assert bits.shape == (0, 8, 4, 4)
        assert block_of(linear(3, 8)).eval()(torch.empty(0, 3)).shape == (0, 8)


def test_a_gradient_in_evaluation_is_that_of_the_parts():
    block, x = block_of(conv(5, 5, padding=1)).eval(), randn(2, 5, 6, 6)
    outs, grads = [], []
    for run in (block, partial(parts_of, block)):
        block.product.grad_quantizer = rounding()
        leaf = x.clone().requires_grad_()
        outs.append(run(leaf, leaf))
        outs[-1].sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*outs)
    assert torch.equal(*grads)
