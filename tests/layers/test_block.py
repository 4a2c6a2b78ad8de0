"""The block that recomputes its product against the formula in float64; what it keeps, and what it refuses."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.layers import (
    BinaryBlock,
    BinaryConv2d,
    BinaryLinear,
    BinaryNorm,
    L1BatchNorm,
    MaxPool2d,
    OffsetBatchNorm,
    RPReLU,
    recomputed,
)
from bnn.quantizers import ApproxSign, ReCU, ScaledSign, Sign, Ternary
from bnn.quantizers.gradients import Int8Gradient, PowerOfTwoGradient, SignGradient
from bnn.weights import AccumulatorStore, DiscreteStore, LatentStore
from tests.contracts import bits_of, dense, randn, saved_bytes, signs


def rounding(seed: int = 7) -> Int8Gradient:
    return Int8Gradient(generator=torch.Generator().manual_seed(seed))


def conv(channels: int, outputs: int, kernel: int = 3, **options: Any) -> BinaryConv2d:
    options = {"store": AccumulatorStore, "grad_quantizer": rounding(), **options}
    return BinaryConv2d(channels, outputs, kernel, **options)


def linear(features: int, outputs: int, **options: Any) -> BinaryLinear:
    options = {"store": AccumulatorStore, "grad_quantizer": rounding(), **options}
    return BinaryLinear(features, outputs, **options)


def block_of(
    product: nn.Module,
    *,
    norm: nn.Module | None = None,
    pool: MaxPool2d | None = None,
    activation: Any = None,
    rectifies: bool = False,
) -> BinaryBlock:
    """A block that recomputes, whose scale, gamma and beta are those of a norm that has been trained for a while."""
    is_image = isinstance(product, (BinaryConv2d, nn.Conv2d))
    outputs = (product.store if hasattr(product, "store") else product.weight).shape[0]
    norm = norm or (nn.BatchNorm2d if is_image else nn.BatchNorm1d)(outputs)
    block = BinaryBlock(product, norm, pool=pool, rectifies=rectifies, activation=activation, recompute=True)
    with torch.no_grad():
        if norm.weight is not None:
            norm.weight.copy_(0.5 + randn(outputs, seed=20).abs() * (1 - 2 * (torch.arange(outputs) % 3 == 1)))
            norm.bias.copy_(0.3 * randn(outputs, seed=21))
        if getattr(product, "learned_scale", None) is not None:
            product.learned_scale.copy_(0.02 + 0.1 * randn(outputs, seed=22))
    return block


def eighths(*shape: int, seed: int = 0) -> Tensor:
    """Values of which a product with few signs is exact in float16."""
    return (randn(*shape, seed=seed) * 8).round() / 8 + 1 / 16


class Case(NamedTuple):
    make: Callable[[], BinaryBlock]
    x: Callable[[], Tensor]
    shortcut: str = "none"
    """`none`, `input` or `other`."""


CASES = {
    "residual unit": Case(
        lambda: block_of(
            conv(10, 10, padding=1, input_quantizer=ApproxSign(), learned_scale=True), activation=nn.Hardtanh()
        ),
        lambda: 0.6 * randn(3, 10, 7, 5),
        "input",
    ),
    "residual unit of bfloat16": Case(
        lambda: block_of(conv(16, 16, padding=1), activation=nn.Hardtanh()),
        lambda: randn(4, 16, 6, 6).clamp(-1, 1).bfloat16(),
        "input",
    ),
    "shortcut without activation": Case(
        lambda: block_of(conv(9, 9, padding=1, input_quantizer=ApproxSign())), lambda: randn(2, 9, 5, 5), "input"
    ),
    "another shortcut": Case(
        lambda: block_of(conv(5, 12, padding=1, learned_scale=True), activation=nn.Hardtanh(-0.5, 2.0)),
        lambda: randn(3, 5, 6, 7),
        "other",
    ),
    "another shortcut of ReLU": Case(
        lambda: block_of(conv(8, 7, 1), activation=nn.ReLU()), lambda: randn(3, 8, 3, 3), "other"
    ),
    "input of bits, which is the shortcut": Case(
        lambda: block_of(conv(8, 8, padding=1), activation=nn.Hardtanh()), lambda: bits_of(3, 8, 5, 5), "input"
    ),
    "nothing around it": Case(lambda: block_of(conv(3, 17)), lambda: randn(2, 3, 9, 6)),
    "stride and groups": Case(
        lambda: block_of(conv(6, 9, stride=2, padding=1, groups=3), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 9, 8),
    ),
    "dilation": Case(lambda: block_of(conv(5, 6, padding=2, dilation=2), activation=Sign()), lambda: randn(2, 5, 7, 7)),
    "one image": Case(lambda: block_of(conv(5, 6), activation=nn.Hardtanh()), lambda: randn(1, 5, 4, 4)),
    "pooled": Case(
        # Some of its scales are negative, so that the smallest product is the largest.
        lambda: block_of(conv(6, 10, padding=1, learned_scale=True), pool=MaxPool2d(2), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 8, 9),
    ),
    "pooled with a gap and padding": Case(
        lambda: block_of(conv(6, 10, padding=1), pool=MaxPool2d(2, stride=3, padding=1), activation=Sign()),
        lambda: bits_of(3, 6, 8, 8),
    ),
    "first layer": Case(
        lambda: block_of(conv(3, 11, padding=1, input_quantizer=None), activation=Sign(window=0.5)),
        lambda: eighths(4, 3, 7, 6),
    ),
    "pooled first layer": Case(
        lambda: block_of(conv(3, 11, padding=1, input_quantizer=None), pool=MaxPool2d(2), activation=ApproxSign()),
        lambda: eighths(4, 3, 8, 6),
    ),
    "signs that pass all": Case(
        lambda: block_of(conv(6, 5, input_quantizer=Sign(window=math.inf)), activation=Sign(window=math.inf)),
        lambda: 3 * randn(2, 6, 5, 5),
    ),
    "norm without factors": Case(
        lambda: block_of(conv(6, 5), norm=nn.BatchNorm2d(5, affine=False), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 5, 5),
    ),
    "norm of an offset alone": Case(
        lambda: block_of(conv(6, 5), norm=OffsetBatchNorm(5), activation=nn.Hardtanh()), lambda: randn(3, 6, 5, 5)
    ),
    "rectified residual unit": Case(
        lambda: block_of(conv(9, 9, padding=1), rectifies=True), lambda: randn(3, 9, 6, 5), "input"
    ),
    "rectified and pooled": Case(
        lambda: block_of(conv(6, 10, padding=1), pool=MaxPool2d(2), rectifies=True, activation=Sign()),
        lambda: randn(3, 6, 8, 6),
    ),
    "rectified product of a real weight": Case(
        lambda: block_of(nn.Conv2d(3, 7, 3, bias=False), rectifies=True), lambda: eighths(2, 3, 6, 5)
    ),
    "norm with a large eps": Case(
        lambda: block_of(conv(6, 5, learned_scale=True), norm=nn.BatchNorm2d(5, eps=2.0), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 5, 5),
    ),
    "linear": Case(lambda: block_of(linear(30, 20), activation=Sign()), lambda: bits_of(13, 30)),
    "linear of values": Case(lambda: block_of(linear(30, 7, input_quantizer=ApproxSign())), lambda: randn(13, 30)),
    "linear residual unit": Case(
        lambda: block_of(linear(12, 12, learned_scale=True), activation=nn.Hardtanh()), lambda: randn(9, 12), "input"
    ),
    "first linear layer": Case(
        lambda: block_of(linear(30, 7, input_quantizer=None), activation=ApproxSign()), lambda: eighths(13, 30)
    ),
    "real stem": Case(
        lambda: block_of(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), activation=nn.Hardtanh()),
        lambda: randn(3, 3, 8, 9),
    ),
    "pooled real stem": Case(
        lambda: block_of(nn.Conv2d(4, 6, 3, dilation=2, groups=2, bias=False), pool=MaxPool2d(2), activation=nn.ReLU()),
        lambda: randn(3, 4, 9, 8),
    ),
    "real 1x1 with its input": Case(
        lambda: block_of(nn.Conv2d(6, 6, 1, bias=False)), lambda: randn(3, 6, 4, 4), "input"
    ),
    "real linear": Case(lambda: block_of(nn.Linear(11, 6, bias=False), activation=Sign()), lambda: randn(9, 11)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


# --- the formula, in float64 ---------------------------------------------------------------------------------------


class SteppedSign(torch.autograd.Function):
    """Signs whose gradient is multiplied by the quantizer's steps."""

    @staticmethod
    def forward(ctx, x, steps):
        ctx.save_for_backward(x)
        ctx.steps = steps
        return signs(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        edges, slopes = ctx.steps
        code = sum((x.abs() > torch.tensor(edge).double()).long() for edge in edges)
        return grad * torch.tensor(slopes, dtype=torch.float64)[code], None


class Replaced(torch.autograd.Function):
    """The input, whose gradient is the given one."""

    @staticmethod
    def forward(ctx, x, gradient):
        ctx.save_for_backward(gradient)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return *ctx.saved_tensors, None


class Formula:
    """activation(norm(pool(product(x))) + shortcut) of a block with leaves of its own.

    Attributes:
        leaves: of what has a gradient, by name.
        y: the pooled product.
        rectified: what enters the norm.
        pre: before the activation.
        out: the result.
    """

    def __init__(
        self, block: BinaryBlock, x: Tensor, shortcut: Tensor | None, y_gradient: Tensor | None = None
    ) -> None:
        product, norm = block.product, block.norm
        is_binary = hasattr(product, "store")
        given = {
            "x": x,
            "weight": product.store.read() if is_binary else product.weight,
            "scale": getattr(product, "learned_scale", None),
            "gamma": norm.weight,
            "beta": norm.bias,
            "shortcut": shortcut,
        }
        self.leaves = {
            name: dense(value).detach().double().requires_grad_() for name, value in given.items() if value is not None
        }
        of = self.leaves.get
        quantizer = product.input_quantizer if is_binary else None
        operand = self.leaves["x"]
        if quantizer is not None and not isinstance(x, BitTensor):
            operand = SteppedSign.apply(operand, quantizer.slope_steps)
        if isinstance(product, (BinaryConv2d, nn.Conv2d)):
            options = (product.stride, product.padding, product.dilation, product.groups)
            y = F.conv2d(operand, self.leaves["weight"], None, *options)
            if not is_binary:  # it is kept as float16
                rows = x.detach().contiguous(memory_format=torch.channels_last)
                y = y + (F.conv2d(rows, product.weight.detach(), None, *options).half().double() - y.detach())
        else:
            y = F.linear(operand, self.leaves["weight"])
        size = of("scale")
        if block.pool is not None:
            if size is not None:  # what is pooled has the sign of the factor
                y = y * size.detach().sign().view(-1, 1, 1)
                size = size.abs()
            y = F.max_pool2d(y, block.pool.kernel_size, block.pool.stride, block.pool.padding)
        if y_gradient is not None:
            y = Replaced.apply(y, y_gradient.double())
        self.y = y
        self.rectified = y.relu() if block.rectifies else y
        if y.requires_grad:
            self.rectified.retain_grad()
        channels = (1, -1, *[1] * (y.dim() - 2))
        z = self.rectified if size is None else self.rectified * size.view(channels)
        dims = [d for d in range(z.dim()) if d != 1]
        self.mean, self.variance = z.mean(dims), z.var(dims, correction=0)
        x_hat = (z - self.mean.view(channels)) / (self.variance.view(channels) + norm.eps).sqrt()
        self.pre = x_hat if of("gamma") is None else x_hat * self.leaves["gamma"].view(channels)
        self.pre = self.pre if of("beta") is None else self.pre + self.leaves["beta"].view(channels)
        self.pre = self.pre if shortcut is None else self.pre + self.leaves["shortcut"]
        if block.output_steps is not None:
            self.out = SteppedSign.apply(self.pre, block.output_steps)
        else:
            self.out = self.pre if block.activation is None else block.activation(self.pre)

    def at_an_edge(self, block: BinaryBlock) -> Tensor:
        """Where the rounding of `pre` to float32 may decide on the slope, or on the sign."""
        pre = self.pre.detach()
        if block.output_steps is not None:
            distances = [pre.abs() - edge for edge in (0.0, *block.output_steps.edges)]
        elif block.activation is not None:
            distances = [pre - edge for edge in block.clamp_range]
        else:
            distances = []
        near = torch.zeros_like(pre, dtype=torch.bool)
        for distance in distances:
            near |= distance.abs() < 1e-4
        return near


def shortcut_of(case: Case, block: BinaryBlock, x: Tensor) -> Tensor | None:
    if case.shortcut == "other":
        with torch.no_grad():
            return randn(*copy.deepcopy(block)(x).shape, seed=5).clamp(-1, 1)
    return x if case.shortcut == "input" else None


class Spy:
    """The package's operations, whose calls are kept."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], Any]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = getattr(torch.ops.bnn, name)(*args)
            self.calls.append((name, args, result))
            return result

        return call

    def called(self, name: str) -> tuple[tuple[Any, ...], Any]:
        ((args, result),) = [(args, result) for called, args, result in self.calls if called == name]
        return args, result


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
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

    # The gradient of the product, before it is rounded.
    is_binary = hasattr(block.product, "store")
    args, result = spy.called("norm_gradient_integers" if is_binary else "norm_gradient")
    exact = torch.ops.bnn.norm_gradient(*args[:5])
    of_grad, of_y, constant = (of.view(1, -1, *[1] * (exact.dim() - 2)) for of in args[4])
    slopes = max(abs(slope) for slope in args[2])
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


def channel_dims(x: Tensor) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != 1)


def scale_of(block: BinaryBlock) -> nn.Parameter | None:
    return getattr(block.product, "learned_scale", None)


@cases
def test_backward_forms_the_same_product_again(case, monkeypatch):
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
    (y, choices, shape), (again, choices_again, shape_again) = formed
    assert torch.equal(y, again)
    assert shape == shape_again
    assert (choices is None) == (block.pool is None)
    assert choices is None or torch.equal(choices, choices_again)
    expected = Formula(block, x.detach(), None).rectified
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-6)
    if hasattr(block.product, "store"):
        assert torch.equal(y.double(), expected), "products with bits are exact"


def parts_of(block: BinaryBlock, x: Tensor, shortcut: Tensor | None) -> Tensor:
    """The parts of a block, called one after the other."""
    out = block.product(x)
    out = out if block.pool is None else block.pool(out)
    out = block.norm(out.relu() if block.rectifies else out)
    out = out if shortcut is None else out + shortcut
    return out if block.activation is None else block.activation(out)


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


# --- channels that do not vary, and what is refused ----------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 2e-5, 3e-4, 0.1, 1.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_constant_channel_has_no_gradient_and_leaves_the_others_theirs(eps, scaled):
    """Its gradient would be one of 1 / sqrt(eps), whose scale erases that of all others."""
    layer = linear(16, 3, learned_scale=scaled)
    # The first output does not see the difference of the two inputs that vary.
    layer.store.weight.data[:, :2] = torch.tensor([[5, -5], [5, 5], [-5, 5]])
    layer.store.weight.data[2, 0] = -5
    x = torch.ones(8, 16)
    x[:, 0] = torch.tensor([1.0, -1, 1, 1, -1, -1, 1, -1])
    x[:, 1] = x[:, 0]
    norm = nn.BatchNorm1d(3, eps=eps)
    block = BinaryBlock(layer, norm, recompute=True)
    block(x).backward(randn(8, 3, seed=2))
    constant, *live = layer.store.weight.grad
    assert not constant.any()
    assert live[0][:2].abs().min() > 0
    assert norm.weight.grad[0] == 0
    assert norm.bias.grad[0] == pytest.approx(randn(8, 3, seed=2)[:, 0].sum().item(), rel=1e-5)
    assert layer.learned_scale is None or layer.learned_scale.grad[0] == 0


def test_the_gradient_of_a_scale_is_of_the_order_of_eps():
    gradients = []
    for eps in (1e-5, 1e-3):
        torch.manual_seed(0)
        block = BinaryBlock(conv(6, 5, learned_scale=True), nn.BatchNorm2d(5, eps=eps), recompute=True)
        block(randn(4, 6, 7, 7)).backward(randn(4, 5, 5, 5, seed=1).bfloat16())
        gradients.append(block.product.learned_scale.grad)
    assert gradients[0].all()
    torch.testing.assert_close(gradients[1], 100 * gradients[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("make", [lambda: (conv(3, 8, 3), (1, 3, 3, 3)), lambda: (linear(4, 8), (1, 4))])
def test_one_value_a_channel_is_refused(make):
    layer, shape = make()
    with pytest.raises(ValueError, match="two values a channel, got a tensor of"):
        block_of(layer)(randn(*shape))


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 3, 6, 6, 1), (3, 6)])
def test_another_number_of_dimensions_is_refused(shape):
    for training in (True, False):
        block = block_of(conv(3, 8)).train(training)
        with torch.no_grad(), pytest.raises(ValueError, match=r"takes \[N, C, H, W\], got"):
            block(randn(*shape))


@pytest.mark.parametrize("shape", [(2, 3, 8), (8,)])
def test_a_matrix_is_what_a_linear_block_takes(shape):
    for training in (True, False):
        block = block_of(linear(8, 4)).train(training)
        with torch.no_grad(), pytest.raises(ValueError, match=r"takes \[N, K\], got"):
            block(randn(*shape))


@pytest.mark.parametrize("shape", [(2, 8, 1, 1), (1, 8, 4, 4), (2, 4, 4, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_a_shortcut_of_another_shape_is_refused(shape, training):
    block = block_of(conv(3, 8)).train(training)
    with torch.no_grad(), pytest.raises(ValueError, match=r"shortcut must be \(2, 8, 4, 4\)"):
        block(randn(2, 3, 6, 6), randn(*shape))


@pytest.mark.parametrize("activation", [None, Sign()])
def test_nan_is_refused_before_its_sign_is_taken(activation):
    x = randn(2, 3, 6, 6)
    x[1, 2, 3, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="sign of NaN"):
        block_of(conv(3, 8), activation=activation)(x)
    stem = block_of(nn.Conv2d(3, 8, 3, bias=False), activation=Sign())
    with pytest.raises(NonFiniteError, match="sign of NaN"):
        stem(x)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_is_refused(value):
    block = block_of(conv(3, 8))
    grad = torch.ones(2, 8, 4, 4, dtype=torch.bfloat16)
    grad[1, 3, 2, 2] = value
    with pytest.raises(NonFiniteError, match="cannot round the gradient to integers"):
        block(randn(2, 3, 6, 6)).backward(grad)


# --- what is kept --------------------------------------------------------------------------------------------------

CONSTANTS = 3 * 4  # gamma, and mean and deviation of the product, float32


@pytest.mark.parametrize(
    ("quantizer", "activation", "x_planes", "out_planes"),
    [
        (Sign(), nn.Hardtanh(), 2, 1),
        (ApproxSign(), nn.Hardtanh(), 3, 1),
        (ApproxSign(), nn.ReLU(), 3, 1),
        (ApproxSign(), None, 3, 0),
        (Sign(), Sign(), 2, 1),
        (Sign(), ApproxSign(), 2, 2),
    ],
)
@pytest.mark.parametrize("pool", [None, MaxPool2d(2)])
@pytest.mark.parametrize("scaled", [True, False])
def test_keeps_bits_only(quantizer, activation, x_planes, out_planes, pool, scaled):
    """Of the input the sign and 1 or 2 bits of slope, of the weight the sign, of the result 0, 1 or 2 bits of slope."""
    layer = conv(32, 64, padding=1, input_quantizer=quantizer, learned_scale=scaled)
    block = block_of(layer, pool=pool, activation=copy.deepcopy(activation))
    x, size = randn(10, 32, 16, 16).requires_grad_(), 16 if pool is None else 8
    with saved_bytes() as saved:
        out = block(x)
    bits = x_planes * x.numel() + layer.store.size + out_planes * 10 * 64 * size * size
    assert out.numel() == 10 * 64 * size * size
    scales = scaled * (1 if pool is None else 2)  # and its magnitude
    assert sum(saved.values()) == bits / 8 + (CONSTANTS + 4 * scales) * 64


def test_keeps_of_a_shortcut_nothing_and_of_bits_one_bit():
    block = block_of(conv(32, 32, padding=1), activation=nn.Hardtanh())
    x = bits_of(4, 32, 8, 8)
    with saved_bytes() as saved:
        block(x, randn(4, 32, 8, 8).requires_grad_())
    assert sum(saved.values()) == (2 * x.numel() + 32 * 32 * 9) / 8 + CONSTANTS * 32
    unit = block_of(conv(32, 32, padding=1, input_quantizer=ApproxSign()), activation=nn.Hardtanh())
    x = randn(4, 32, 8, 8).requires_grad_()
    with saved_bytes() as saved:
        unit(x, x)
    assert sum(saved.values()) == (4 * x.numel() + 32 * 32 * 9) / 8 + CONSTANTS * 32


def test_a_chain_keeps_each_sign_once():
    """The bits that one block hands on are those that the next one keeps."""
    first, second = (block_of(conv(32, 32, padding=1), activation=Sign()) for _ in range(2))
    x = bits_of(4, 32, 8, 8)
    with saved_bytes() as saved:
        second(first(x))
    assert sum(saved.values()) == (4 * x.numel() + 2 * 32 * 32 * 9) / 8 + 2 * CONSTANTS * 32


def test_keeps_the_input_of_a_real_weight_as_it_is():
    stem = block_of(nn.Conv2d(3, 32, 3, padding=1, bias=False), activation=nn.Hardtanh())
    x = randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with saved_bytes() as saved:
        stem(x)
    assert sum(saved.values()) == 4 * (x.numel() + stem.product.weight.numel()) + 4 * 32 * 64 / 8 + CONSTANTS * 32


def test_packed_signs_of_a_weight_gradient_are_those_of_the_full_one():
    packed_signs = SignGradient(packed=True, scale="none", generator=torch.Generator().manual_seed(8))
    full, packed = conv(8, 16), conv(8, 16, store=partial(AccumulatorStore, gradient_quantizer=packed_signs))
    packed.store.weight.data.copy_(full.store.weight)
    gradients = []
    for product in (full, packed):
        block_of(product)(randn(4, 8, 6, 6)).backward(randn(4, 16, 4, 4, seed=1).bfloat16())
        gradients.append(product.store.weight.grad)
    assert isinstance(gradients[1], BitTensor)
    some = gradients[0] != 0
    assert torch.equal(gradients[1].dense()[some], gradients[0].sign()[some])


def test_bits_get_the_same_gradient_in_any_memory_format():
    x, grad, gradients = randn(3, 8, 6, 6), randn(3, 5, 4, 4, seed=1).bfloat16(), []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        bits = BitTensor.from_dense(x.contiguous(memory_format=memory_format)).requires_grad_()
        block = block_of(conv(8, 5))
        block(bits).backward(grad.contiguous(memory_format=memory_format))
        gradients.append((bits.grad, block.product.store.weight.grad, block.norm.weight.grad))
    assert gradients[0][0].any()
    for of_channels_last, of_contiguous in zip(*gradients, strict=True):
        assert torch.equal(of_channels_last, of_contiguous)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_inputs_of_other_dtypes_get_their_gradient(dtype):
    for block, shape in ((block_of(conv(4, 4, padding=1)), (3, 4, 5, 5)), (block_of(linear(4, 4)), (9, 4))):
        x = randn(*shape).to(dtype).requires_grad_()
        (block(x) * randn(*shape, seed=1)).sum().backward()
        assert x.grad.dtype is dtype
        assert x.grad.any()
        if dtype is not torch.float16:  # a shortcut is float32 or bfloat16
            assert block(x, x).dtype is (torch.bfloat16 if x.dim() == 4 else torch.float32)


def test_an_input_and_weight_without_gradient_get_none():
    block, x = block_of(conv(4, 4, padding=1), activation=nn.Hardtanh()), randn(2, 4, 5, 5)
    block(x, x).square().sum().backward()
    assert x.grad is None
    stem = block_of(nn.Conv2d(4, 4, 3, bias=False))
    stem.product.weight.requires_grad_(False)
    stem(x.requires_grad_()).square().sum().backward()
    assert stem.product.weight.grad is None
    assert x.grad.any()


# --- obstacles -----------------------------------------------------------------------------------------------------


def latent(**options: Any) -> BinaryConv2d:
    return conv(3, 8, store=partial(LatentStore, **options))


class Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnConv(BinaryConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnPool(MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnSign(Sign):
    def forward(self, x: Tensor) -> Tensor:
        return x


class OwnTanh(nn.Hardtanh):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def real(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, **{"bias": False, **options})


CLAMPED = Int8Gradient(quantile=0.9, generator=torch.Generator())
OBSTACLES: dict[str, tuple[Callable[[], BinaryBlock], str]] = {
    "float gradient": (lambda: BinaryBlock(conv(3, 8, grad_quantizer=None), nn.BatchNorm2d(8)), "not rounded"),
    "rounded to nearest": (
        lambda: BinaryBlock(conv(3, 8, grad_quantizer=Int8Gradient()), nn.BatchNorm2d(8)),
        "not rounded to integers at random",
    ),
    "clamped": (lambda: BinaryBlock(conv(3, 8, grad_quantizer=CLAMPED), nn.BatchNorm2d(8)), "not rounded to integers"),
    "powers of two": (
        lambda: BinaryBlock(conv(3, 8, grad_quantizer=PowerOfTwoGradient()), nn.BatchNorm2d(8)),
        "not rounded to integers",
    ),
    "ternary": (lambda: BinaryBlock(latent(quantizer=Ternary()), nn.BatchNorm2d(8)), r"levels \(-1.0, 0.0, 1.0\)"),
    "ternary states": (lambda: BinaryBlock(conv(3, 8, store=DiscreteStore), nn.BatchNorm2d(8)), "levels"),
    "steep input quantizer": (
        lambda: BinaryBlock(conv(3, 8, input_quantizer=ReCU()), nn.BatchNorm2d(8)),
        "input quantizer is ReCU, whose gradient has no few steps",
    ),
    "ternary input": (
        lambda: BinaryBlock(conv(3, 8, input_quantizer=Ternary()), nn.BatchNorm2d(8)),
        "input quantizer is Ternary",
    ),
    "input quantizer of one's own": (
        lambda: BinaryBlock(conv(3, 8, input_quantizer=OwnSign()), nn.BatchNorm2d(8)),
        "input quantizer is OwnSign",
    ),
    "bias": (lambda: BinaryBlock(conv(3, 8, bias=True), nn.BatchNorm2d(8)), "has a bias, which the norm takes away"),
    "bias of a real product": (lambda: BinaryBlock(real(bias=True), nn.BatchNorm2d(8)), "has a bias"),
    "reflected padding": (
        lambda: BinaryBlock(real(padding=1, padding_mode="reflect"), nn.BatchNorm2d(8)),
        "not padded by a number of zeros",
    ),
    "padding by name": (lambda: BinaryBlock(real(padding="same"), nn.BatchNorm2d(8)), "not padded by a number"),
    "product of one's own": (
        lambda: BinaryBlock(OwnConv(3, 8, 3, grad_quantizer=rounding()), nn.BatchNorm2d(8)),
        "its product is a OwnConv",
    ),
    "norm of signs": (lambda: BinaryBlock(conv(3, 8), BinaryNorm(8)), "norm is a BinaryNorm, not torch's batch norm"),
    "l1 norm": (lambda: BinaryBlock(conv(3, 8), L1BatchNorm(8)), "norm is a L1BatchNorm"),
    "norm of one's own": (lambda: BinaryBlock(conv(3, 8), Doubled(8)), "norm is a Doubled"),
    "no running statistics": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8, track_running_stats=False)),
        "no running statistics with a momentum",
    ),
    "cumulative statistics": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8, momentum=None)),
        "no running statistics with a momentum",
    ),
    "rectified with a learned scale": (
        lambda: BinaryBlock(conv(3, 8, learned_scale=True), nn.BatchNorm2d(8), rectifies=True),
        "a learned scale, which may be negative, is rectified",
    ),
    "overlapping windows": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), pool=MaxPool2d(3, stride=2)),
        "pooling windows overlap",
    ),
    "pooling of one's own": (lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), pool=OwnPool(2)), "pooling"),
    "learned activation": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=RPReLU(8)),
        "its activation is a RPReLU",
    ),
    "activation of one's own": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=OwnTanh()),
        "its activation is a OwnTanh",
    ),
    "signs of one's own": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=OwnSign()),
        "its activation is a OwnSign",
    ),
    "ternary activation": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=Ternary()),
        "its activation is a Ternary",
    ),
}


@pytest.mark.parametrize(("make", "reason"), OBSTACLES.values(), ids=OBSTACLES)
def test_an_obstacle_is_named_and_the_parts_run(make, reason):
    block = make()
    block.recompute = True
    assert block.obstacle is not None
    assert "\n" not in block.obstacle
    assert len(block.obstacle) < 120
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(block.obstacle)
    assert not block.is_fused
    x = randn(4, 3, 9, 9)
    for training in (True, False):
        torch.manual_seed(1)
        block.train(training)
        separate = copy.deepcopy(block)
        out, expected = block(x), parts_of(separate, x, None)
        assert type(out) is type(expected)
        assert torch.equal(dense(out), dense(expected))


@pytest.mark.parametrize("make", [lambda: latent(quantizer=ScaledSign()), lambda: latent(quantizer=ReCU(scale="mean"))])
def test_latent_weights_and_their_scales_are_no_obstacle(make):
    block = BinaryBlock(make(), nn.BatchNorm2d(8), recompute=True)
    assert block.obstacle is None
    x = randn(4, 3, 9, 9)
    assert block.product.store.scale() is not None
    torch.testing.assert_close(block(x).float(), parts_of(block, x, None), rtol=2**-7, atol=1e-5)
    block(x).backward(randn(4, 8, 7, 7, seed=1).bfloat16())
    assert block.product.store.weight.grad.any()


def test_subclasses_that_change_no_forward_recompute():
    renamed = type("Renamed", (nn.BatchNorm2d,), {})
    activation = type("Clamp", (nn.Hardtanh,), {})
    block = BinaryBlock(conv(3, 8), renamed(8), activation=activation(-2.0, 0.5), recompute=True)
    assert block.is_fused
    assert block.clamp_range == (-2.0, 0.5)


@pytest.mark.parametrize("recompute", [True, False])
def test_names_in_a_state_dict_are_the_same_in_both_cases(recompute):
    block = block_of(conv(3, 8, learned_scale=True), pool=MaxPool2d(2), activation=nn.Hardtanh())
    block.recompute = recompute
    block(randn(2, 3, 9, 9))
    assert list(block.state_dict()) == [
        "product.learned_scale",
        "product.store.weight",
        *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    ]
    other = block_of(conv(3, 8, learned_scale=True), pool=MaxPool2d(2), activation=nn.Hardtanh())
    other.recompute = not recompute
    other.load_state_dict(block.state_dict())


def test_a_block_recomputes_from_when_its_product_gets_integer_gradients():
    block = BinaryBlock(conv(3, 8, grad_quantizer=None), nn.BatchNorm2d(8), recompute=True)
    assert not block.is_fused
    block.product.grad_quantizer = rounding()
    assert block.is_fused
    block.recompute = False
    assert not block.is_fused


def test_signs_of_a_sum_run_as_parts():
    block = block_of(conv(4, 4, padding=1), activation=Sign())
    x = randn(3, 4, 5, 5)
    separate = copy.deepcopy(block)
    out = block(x, x)
    assert isinstance(out, BitTensor)
    assert torch.equal(out.dense(), parts_of(separate, x, x).dense())


def test_a_frozen_norm_uses_its_running_statistics():
    block = block_of(conv(3, 8))
    block.norm.eval()
    x = randn(4, 3, 6, 6)
    assert torch.equal(block(x), parts_of(block, x, None))
    assert not block.norm.running_mean.any()


@pytest.mark.parametrize("size", [16, 24])
def test_a_transposed_input_is_worked_off_by_its_samples(size):
    block = block_of(linear(16, 20))
    bits = BitTensor.from_dense(randn(16, size)).t()
    for x in (bits, randn(16, size).t()):
        expected = BitTensor.from_dense(dense(x).contiguous()) if x is bits else x.contiguous()
        assert torch.equal(block(x), block(expected))
        with torch.no_grad():
            block.eval()
            assert torch.equal(block(x), block(expected))
            block.train()


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_an_input_of_another_width_is_refused_although_its_bytes_fit(recompute, training):
    block = block_of(linear(48, 20)).train(training)
    block.recompute = recompute
    with torch.no_grad(), pytest.raises((ValueError, RuntimeError)):
        block(randn(8, 45))


@pytest.mark.parametrize("product", [lambda: nn.BatchNorm2d(8), lambda: nn.Conv1d(3, 8, 3), Sign])
def test_other_products_are_refused(product):
    with pytest.raises(TypeError, match="made of a convolution or a linear layer, got"):
        BinaryBlock(product(), nn.BatchNorm2d(8))


@pytest.mark.parametrize("product", [lambda: BinaryLinear(8, 4), lambda: nn.Linear(8, 4)])
def test_pooling_behind_a_linear_layer_is_refused(product):
    with pytest.raises(TypeError, match="pooling stands behind a convolution, not behind a"):
        BinaryBlock(product(), nn.BatchNorm1d(4), pool=MaxPool2d(2))
