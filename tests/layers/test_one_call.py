"""Blocks in one call of the kernels each way, beside the operations called one after the other: the same bits."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bnn.errors import NonFiniteError
from bnn.layers import BinaryBlock, MaxPool2d
from bnn.layers import block as block_module
from bnn.ops import PoolWindow, Window
from bnn.ops.cpu import blocks, native
from bnn.quantizers import ApproxSign
from bnn.quantizers.gradients import BFloat16Gradient, GradientQuantizer, Int8Gradient, IntegerGradient, SignGradient
from bnn.weights import AccumulatorStore, LatentStore
from tests.contracts import bits_of, dense, randn
from tests.layers.blocks import Case, block_of, cases, conv, linear, shortcut_of
from tests.ops.comparison import needs_native, random_bits
from tests.ops.conftest import isa  # noqa: F401  (a fixture)

pytestmark = needs_native


def drawing() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each function of the kernels is called."""
    counted: Counter[str] = Counter()
    original = native.invoke

    def invoke(extension: Any, set_: str, threads: int, name: str, *arguments: Any) -> Any:
        counted[name] += 1
        return original(extension, set_, threads, name, *arguments)

    monkeypatch.setattr(native, "invoke", invoke)
    return counted


def trained(case: Case) -> dict[str, Any]:
    """Everything that two steps through a block leave."""
    torch.manual_seed(0)
    block, x = case.make(), case.x()
    shortcut = shortcut_of(case, block, x)
    kept: dict[str, Any] = {}
    for step in range(2):
        leaf = x.clone().requires_grad_()
        given = leaf if case.shortcut == "input" else None if shortcut is None else shortcut.clone().requires_grad_()
        out = block(leaf, given)
        out.backward((randn(*out.shape, seed=step) / 64).to(out.dtype))
        kept |= {f"out {step}": dense(out.detach()), f"x {step}": leaf.grad}
        kept |= {f"shortcut {step}": None if given is None else given.grad}
    kept |= {name: dense(value.grad) for name, value in block.named_parameters() if value.grad is not None}
    kept |= dict(block.named_buffers())
    quantizer = getattr(block.product, "grad_quantizer", None)
    return kept | ({} if quantizer is None else {"generator": quantizer.generator.get_state()})


def assert_same_both_ways(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    in_one_call = trained(case)
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "serves", lambda *_: False)
        patch.setattr(blocks, "serves_gradient", lambda *_: False)
        expected = trained(case)
    assert in_one_call.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert in_one_call[name] is None
        else:
            assert in_one_call[name].dtype is value.dtype
            assert torch.equal(in_one_call[name], value), name


@cases
@pytest.mark.parametrize("keeps", [False, True])
def test_the_same_bits_as_the_operations(isa, case, keeps, monkeypatch):  # noqa: F811
    if keeps:
        monkeypatch.setattr(block_module, "_KEPT_FROM", 1)
    assert_same_both_ways(case, monkeypatch)


QUANTIZERS: dict[str, Callable[[], GradientQuantizer]] = {
    "ternary for the weight": lambda: Int8Gradient(generator=drawing(), ternary_weights=True),
    "5 bits": lambda: IntegerGradient(5, generator=drawing()),
    "8 and 4 bits": lambda: IntegerGradient(8, weight_bits=4, generator=drawing()),
}


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
@pytest.mark.parametrize("of_weight", [None, BFloat16Gradient(), SignGradient(scale="none", packed=True)])
def test_gradients_of_other_widths(isa, quantizer, of_weight, monkeypatch):  # noqa: F811
    def store(shape: Any) -> AccumulatorStore:
        return AccumulatorStore(shape, gradient_quantizer=of_weight)

    def make() -> BinaryBlock:
        layer = conv(16, 16, padding=1, store=store, grad_quantizer=quantizer(), learned_scale=True)
        return block_of(layer, activation=nn.Hardtanh())

    assert_same_both_ways(Case(make, lambda: randn(3, 16, 9, 9).bfloat16(), "input"), monkeypatch)


@pytest.mark.parametrize("x", [lambda: randn(9, 40), lambda: bits_of(9, 40)])
@pytest.mark.parametrize("store", [AccumulatorStore, LatentStore])
def test_linear_layers(isa, x, store, monkeypatch):  # noqa: F811
    assert_same_both_ways(Case(lambda: block_of(linear(40, 24, store=store), activation=ApproxSign()), x), monkeypatch)


@pytest.mark.parametrize("pool", [None, MaxPool2d(2)])
@pytest.mark.parametrize("keeps", [False, True])
def test_one_call_each_way(pool, keeps, calls, monkeypatch):
    if keeps:
        monkeypatch.setattr(block_module, "_KEPT_FROM", 1)
    block = block_of(conv(16, 16, padding=1), pool=pool, activation=nn.Hardtanh())
    x = randn(4, 16, 8, 8).bfloat16().requires_grad_()
    out = block(x, x if pool is None else None)
    assert calls == {"pack": 1, "block": 1}
    calls.clear()
    out.sum().backward()
    assert calls == {"block_backward": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: block_of(
            conv(16, 96, 1), activation=nn.Hardtanh()
        ),  # more outputs than the gradient of the input holds
        lambda: block_of(linear(256, 2048), activation=nn.Hardtanh()),
    ],
)
def test_a_product_that_has_no_place_in_the_gradient_of_the_input_is_formed_by_itself(make, calls):
    block = make()
    x = (randn(64, 16, 16, 16) if block.window else randn(64, 256)).bfloat16().requires_grad_()
    block(x).sum().backward()
    assert calls["block"] == 1
    assert not calls["block_backward"]


def test_what_lies_in_front_of_a_pooled_gradient_overlaps_with_nothing_that_is_still_read(monkeypatch):
    """On one thread the results alone would not tell: a gradient is written behind the product that it is formed of."""
    places: dict[str, int] = {}
    original = native.invoke

    def invoke(extension: Any, set_: str, threads: int, name: str, *arguments: Any) -> Any:
        if name == "block_backward":
            y, of_pooled, of_x = arguments[6], arguments[31], arguments[35]
            places.update(y=y.data_ptr(), pooled=of_pooled, of_x=of_x.data_ptr(), end=of_x.data_ptr() + of_x.nbytes)
        return original(extension, set_, threads, name, *arguments)

    monkeypatch.setattr(native, "invoke", invoke)
    block = block_of(conv(16, 16, padding=1), pool=MaxPool2d(2), activation=nn.Hardtanh())
    block(randn(4, 16, 8, 8).bfloat16().requires_grad_()).sum().backward()
    elements = 4 * 16 * 4 * 4  # 16 bits each of the product, 8 of its gradient
    assert places["y"] == places["of_x"]
    assert places["pooled"] == places["y"] + 2 * elements
    assert places["pooled"] + elements <= places["end"]


class Watching(TorchDispatchMode):
    """A mode, which sees every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func._schema.name)
        return func(*args, **kwargs or {})


def test_a_mode_sees_the_operations(calls):
    block = block_of(conv(8, 8, padding=1), activation=nn.Hardtanh())
    with Watching() as mode:
        block(randn(2, 8, 5, 5).requires_grad_()).sum().backward()
    assert {"bnn::conv2d", "bnn::batch_statistics", "bnn::norm_clamp_", "bnn::conv2d_backward_weight"} <= mode.seen
    assert not calls["block"] + calls["block_backward"]


def test_a_value_that_is_no_number_is_refused():
    block, x = block_of(conv(4, 4), activation=nn.Hardtanh()), randn(2, 4, 5, 5)
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError):
        block(x)
    out = block(randn(2, 4, 5, 5).requires_grad_())
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        out.backward(torch.full_like(out, torch.inf))
    assert block.product.store.weight.grad is None


def test_statistics_that_are_changed_are_known_to_have_changed():
    block = block_of(conv(4, 4), activation=nn.Hardtanh())
    before = [x._version for x in block.norm.buffers()]
    block(randn(2, 4, 5, 5))
    assert [x._version for x in block.norm.buffers()] == [version + 1 for version in before]


def operands(**changed: Any) -> blocks.Operands:
    values = {
        "x": random_bits(3, 200, 0),
        "x_shape": [3, 8, 5, 5],
        "weight": random_bits(6, 72, 1),
        "weight_shape": [6, 8, 3, 3],
        "window": Window.of(padding=1),
        "pool": None,
    }
    return blocks.Operands(**values | changed)


def norm(**changed: Any) -> blocks.BatchNorm:
    values = {"scale": None, "gamma": torch.ones(6), "beta": None, "eps": 1e-5, "momentum": 0.1}
    values |= {"running_mean": torch.zeros(6), "running_var": torch.ones(6)}
    return blocks.BatchNorm(**values | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"operands": operands(x=random_bits(2, 200, 0))}, "x of the shape"),
        ({"operands": operands(x=randn(3, 8, 5, 4))}, "x must be"),
        ({"operands": operands(weight=random_bits(5, 72, 1))}, "weight of the shape"),
        ({"operands": operands(weight_shape=[6, 7, 3, 3])}, "does not fit an input"),
        ({"norm": norm(gamma=torch.ones(5))}, "one a channel"),
        ({"norm": norm(running_var=torch.ones(7))}, "one a channel"),
        ({"batches": torch.tensor(0.0)}, "one int64"),
        ({"shortcut": randn(3, 6, 5, 4)}, "the shortcut must be"),
        ({"operands": operands(x=randn(3, 8, 5, 5)), "input_edges": [1.0, 0.5, 2.0]}, "ascending edges"),
        ({"output_edges": [1.0, 2.0]}, "ascending edges"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changed, message):
    running = torch.ones(6)
    given = {
        "operands": operands(),
        "input_edges": [1.0],
        "norm": norm(running_mean=running),
        "batches": torch.tensor(0),
        "shortcut": None,
        "clamp_range": (-1.0, 1.0),
        "output_edges": [],
    }
    with pytest.raises(ValueError, match=message):
        blocks.forward(**given | changed)
    assert (running == 1).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grad": randn(3, 6, 5, 4)}, "the gradient must be"),
        ({"codes": random_bits(3, 140, 2)[None]}, "planes of codes must be"),
        ({"slopes": [1.0]}, "slopes"),
        ({"operands": operands(x=random_bits(2, 200, 0))}, "x of the shape"),
        ({"of_norm": (torch.ones(2, 5), None, None, 1e-5)}, "moments must be"),
        ({"of_norm": (torch.ones(2, 6), torch.ones(4), None, 1e-5)}, "one a channel"),
        ({"rounding": blocks.Rounding(128, 0)}, "1..127|largest"),
        ({"kept": blocks.Kept(randn(3, 6, 5, 5), None)}, "what is kept must be torch.float16"),
        ({"kept": blocks.Kept(randn(3, 6, 5, 4).half(), None)}, "what is kept must be"),
        ({"kept": blocks.Kept(randn(3, 6, 5, 5).half(), random_bits(3, 150, 5)[None])}, "has choices if it is pooled"),
        (
            {
                "grad": randn(3, 6, 2, 2),
                "codes": random_bits(3, 24, 2)[None],
                "operands": operands(pool=PoolWindow.of(2)),
                "kept": blocks.Kept(randn(3, 6, 2, 2).half(), None),
            },
            "has choices if it is pooled",
        ),
        (
            {
                "grad": randn(3, 6, 2, 2),
                "codes": random_bits(3, 24, 2)[None],
                "operands": operands(pool=PoolWindow.of(2)),
                "kept": blocks.Kept(randn(3, 6, 2, 2).half(), random_bits(3, 24, 5)[None]),
            },
            "choices must be",
        ),
        (
            {"of_input": blocks.InputGradient(torch.float32, random_bits(3, 190, 3)[None], [1.0, 0.0], None, None)},
            "codes",
        ),
        (
            {
                "of_input": blocks.InputGradient(
                    torch.float32, random_bits(3, 200, 3)[None], [1.0, 0.0], randn(3, 8, 5, 5), random_bits(2, 200, 4)
                )
            },
            "outside of the shape",
        ),
    ],
)
def test_gradients_of_what_does_not_fit_are_refused(changed, message):
    given = {
        "grad": randn(3, 6, 5, 5),
        "codes": random_bits(3, 150, 2)[None],
        "slopes": [1.0, 0.0],
        "operands": operands(),
        "of_norm": (torch.ones(2, 6), None, torch.ones(6), 1e-5),
        "rounding": blocks.Rounding(127, 0),
        "of_input": blocks.InputGradient(torch.float32, random_bits(3, 200, 3)[None], [1.0, 0.0], None, None),
        "of_weight": blocks.WeightGradient(torch.float32, None),
        "kept": None,
    }
    blocks.backward(**given)
    with pytest.raises(ValueError, match=message):
        blocks.backward(**given | changed)
