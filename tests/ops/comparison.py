"""Comparison of kernels with specifications, and what the tests of operations draw."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from bnn.ops import OPERATIONS, PoolWindow, Window, cpu
from bnn.ops.cpu import native
from bnn.ops.packing import pack

needs_native = pytest.mark.skipif(
    cpu.instruction_set() == "reference", reason="the native kernels are not built or not chosen"
)
examples = settings(max_examples=40, deadline=None)
seeds = st.integers(-(2**63), 2**63 - 1)
float_dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**63)


def random_bits(rows: int, n: int, seed: int) -> Tensor:
    return pack(torch.rand(rows, n, generator=generator(seed)) < 0.5)


def random_codes(planes: int, rows: int, n: int, seed: int) -> Tensor:
    return torch.stack([random_bits(rows, n, seed + plane) for plane in range(planes)])


def random_integers(*shape: int, seed: int, largest: int = 127) -> Tensor:
    return torch.randint(-largest, largest + 1, shape, dtype=torch.int8, generator=generator(seed))


def rows_of(x: Tensor) -> Tensor:
    """Packed rows of images or kernels [N, C, H, W]."""
    return pack(x.permute(0, 2, 3, 1).flatten(1))


def of_set(isa: str, run: Callable[[], Any]) -> Any:
    """What a function returns by an instruction set."""
    before, native._instruction_set = native._instruction_set, isa
    try:
        return run()
    finally:
        native._instruction_set = before


def same(got: Any, expected: Any) -> None:
    """Values, signs of zeros, dtype, shape and layout of one or more tensors."""
    got, expected = ((x,) if isinstance(x, Tensor) else x for x in (got, expected))
    for a, b in zip(got, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dim() == 4:
            assert a.movedim(1, -1).is_contiguous()
        else:  # strides of no or one element may be any
            assert a.stride() == b.stride() or (a.is_contiguous() and b.is_contiguous())
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.signbit(a.nan_to_num()), torch.signbit(b.nan_to_num()))


def check(name: str, *args: Any) -> Any:
    """Compares the registered kernel to the specification, whose result it returns."""
    expected = OPERATIONS[name](*args)
    same(getattr(torch.ops.bnn, name)(*args), expected)
    return expected


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Sequence[int], Sequence[int], Window]:
    """(height, width) of an image and of a kernel, and a window that fits, of one group."""
    kernel, dilation, stride = ([draw(st.integers(1, high)) for _ in range(2)] for high in (4, 3, 3))
    padding = [draw(st.integers(0, 6)) for _ in range(2)]
    size = []
    for taps, gap, pad in zip(kernel, dilation, padding, strict=True):
        least = max(1, gap * (taps - 1) + 1 - 2 * pad)
        size.append(draw(st.integers(least, least + 8)))
    return size, kernel, Window.of(stride=stride, padding=padding, dilation=dilation)


@st.composite
def pools(draw: st.DrawFn, *, most_dilation: int = 1) -> tuple[Sequence[int], PoolWindow]:
    """(height, width) of an image and a pooling window that always has a value inside it."""
    kernel, stride = ([draw(st.integers(1, 4)) for _ in range(2)] for _ in range(2))
    dilation = [draw(st.integers(1, most_dilation)) for _ in range(2)]
    padding = [draw(st.integers(0, taps // 2)) for taps in kernel]
    extents = [gap * (taps - 1) + 1 for taps, gap in zip(kernel, dilation, strict=True)]
    size = [draw(st.integers(extent, extent + 8)) for extent in extents]
    return size, PoolWindow.of(kernel, stride=stride, padding=padding, dilation=dilation)
