"""`BitTensor`: a ±1 tensor that is stored as bits.

It has an ordinary shape, strides and floating dtype, and flows through autograd like any tensor. Its elements lie in
memory order, one bit each (set: +1), every row of the slowest dimension starting on a byte. Operations that know it
work on the bits:

* layout: `view`, `reshape`, `flatten`, `t`, `transpose`, `permute`, `clone`, `contiguous`, `to`, `detach`;
* slicing, `split` and `index_select` over the slowest dimension (the batch);
* `max_pool2d`, which is an OR;
* products of two BitTensors, through `F.linear`, `mm` and `F.conv2d`, which return ordinary tensors.

Every other operation sees the dense value, so modules written by users work unchanged. What autograd saves of a
BitTensor is the BitTensor, that is one bit an element, whichever operation saves it. A gradient is always dense.
`sign(0)` is +1 everywhere in this package. A NaN has no sign and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from bnn.ops import PoolWindow, Window
from bnn.ops import functions as _bnn
from bnn.ops.layout import in_memory_order, memory_order, rows_of

_aten = torch.ops.aten

_WOULD_CHANGE = "would change a BitTensor, which is read-only: use .dense() first"


class BitTensor(Tensor):
    """A tensor of +1 and -1 that takes one bit an element. Build one with `BitTensor.from_dense`; it is read-only.

    Attributes:
        packed: uint8 [rows, ceil(row_elements / 8)], see `bnn.ops.packing`; `rows` is the slowest dimension's size.
    """

    packed: Tensor

    @staticmethod
    def __new__(  # noqa: D102
        cls, packed: Tensor, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype
    ) -> BitTensor:
        if torch.compiler.is_exporting():
            raise NotImplementedError("torch.export cannot follow bits: write a run as a file by `bnn compress`")
        return Tensor._make_wrapper_subclass(
            cls, torch.Size(shape), strides=tuple(strides), dtype=dtype, device=packed.device
        )

    def __init__(self, packed: Tensor, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> None:
        self.packed = packed
        self._shape, self._strides, self._dtype = torch.Size(shape), tuple(strides), dtype

    # Torch would ask `__torch_function__` first, which takes twenty times as long.
    @property
    def shape(self) -> torch.Size:  # type: ignore[override]  # noqa: D102
        return self._shape

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]  # noqa: D102
        return self._dtype

    def dim(self) -> int:  # noqa: D102
        return len(self._shape)

    def stride(self, dim: int | None = None) -> Any:  # noqa: D102
        return self._strides if dim is None else self._strides[dim]

    @staticmethod
    def from_dense(x: Tensor, *, dtype: torch.dtype | None = None) -> BitTensor:
        """Packs the signs of `x`.

        Args:
            x: any floating tensor; `sign(0)` is +1. Or int8, or truth values, whose True is +1. A dense memory format
                (such as channels last) is kept.
            dtype: of the result; by default that of `x`, if it is floating, or else the default dtype.

        Returns:
            A BitTensor of the same shape and device. It carries no gradient: quantizers define theirs.

        Raises:
            TypeError: `x` is not of a floating dtype, int8 or bool.
            NonFiniteError: `x` has a NaN.
        """
        if not (x.is_floating_point() or x.dtype in (torch.bool, torch.int8)):
            raise TypeError(f"BitTensor packs the signs of a floating or int8 tensor, not of {x.dtype}")
        return _pack(x.detach(), dtype or (x.dtype if x.is_floating_point() else torch.get_default_dtype()))

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The value as an ordinary tensor of +1 and -1, with the same strides and without gradient.

        Args:
            dtype: dtype of the result; by default the BitTensor's own. `torch.bool` gives the bits.
        """
        order = memory_order(self.shape, self.stride())
        rows, row_elements = rows_of(self.shape, order)
        flat = cast(Tensor, _bnn.unpack(self.packed, row_elements, dtype or self.dtype)).view(rows * row_elements)
        return flat.as_strided(self.shape, self.stride())

    @property
    def storage_bytes(self) -> int:
        """Bytes that the elements really take in memory."""
        return self.packed.numel()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"BitTensor({self.dense()!r}, storage_bytes={self.storage_bytes})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        # Intercepted before autograd, which would save 64-bit indices for every window.
        if func in (F.max_pool2d, torch.max_pool2d) and not _wants_dense_pool(*args, **kwargs):
            return _max_pool2d(*args, **kwargs)
        # Likewise, since torch's dispatch to a subclass imports its package of distributed tensors: 40 MiB.
        if func in (Tensor.flatten, torch.flatten) and args[0].dim() > 2 and (args[1:], kwargs) in _FLATTENS_IMAGES:
            return _Flatten.apply(args[0])  # type: ignore[no-untyped-call]
        if func in (Tensor.numpy, Tensor.tolist, Tensor.__array__):
            return func(args[0].dense(), *args[1:], **kwargs)
        if func is Tensor.share_memory_:
            raise TypeError("a BitTensor has no memory of its own to share: share its bits by .packed.share_memory_()")
        # Would otherwise write into the dense copy of an element and be lost.
        if func is Tensor.__setitem__ and isinstance(args[0], BitTensor):
            raise TypeError(f"an assignment {_WOULD_CHANGE}")
        with torch._C.DisableTorchFunctionSubclass():
            if torch.is_inference_mode_enabled() and func not in _QUERIES:
                args, kwargs = tree_map_only(BitTensor, _for_inference, (args, kwargs))
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _LAYOUT_OPS:
            return _relayout(func, *args, **kwargs)
        if (on_bits := _BIT_OPS.get(func)) is not None:
            result = on_bits(*args, **kwargs)
            if result is not NotImplemented:
                return result
        # Inference mode leaves composite operations whole; their parts are known above.
        if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
            return result
        if _writes_bits(func, args, kwargs):
            raise TypeError(f"{func} {_WOULD_CHANGE}")
        args, kwargs = tree_map_only(BitTensor, BitTensor.dense, (args, kwargs))
        return func(*args, **kwargs)


def _writes_bits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one of the arguments that `func` writes to is a BitTensor."""
    parameters = func._schema.arguments
    values = dict(zip((p.name for p in parameters), args, strict=False)) | kwargs
    written = [values.get(p.name) for p in parameters if p.is_write]
    return any(isinstance(leaf, BitTensor) for leaf in tree_leaves(written))


def _for_inference(bits: BitTensor) -> BitTensor:
    """The same bits made in inference mode, in which torch allows no new views of tensors made outside it."""
    return bits if bits.is_inference() else BitTensor(bits.packed, bits.shape, bits.stride(), bits.dtype)


def _pack(x: Tensor, dtype: torch.dtype) -> BitTensor:
    """Packs the signs of a floating tensor or the truth values of a bool one, as a BitTensor of `dtype`."""
    x, rows = in_memory_order(x)
    return BitTensor(_bnn.pack(rows), x.shape, x.stride(), dtype)


def _repacked(bits: BitTensor, change: Callable[[Tensor], Tensor]) -> BitTensor:
    """The BitTensor whose dense value is `change` of this one's; for changes that move single bits."""
    return _pack(change(bits.dense(torch.bool)), bits.dtype)


def _relayout(func: Any, bits: BitTensor, *args: Any, **kwargs: Any) -> BitTensor:
    """Applies an operation that only gives the same memory a new shape or strides."""
    new = func(torch.empty_strided(bits.shape, bits.stride(), device="meta"), *args, **kwargs)
    old_rows = rows_of(bits.shape, memory_order(bits.shape, bits.stride()))
    new_rows = rows_of(new.shape, memory_order(new.shape, new.stride()))
    if old_rows == new_rows:
        packed = bits.packed
    elif old_rows[1] % 8 == 0 and new_rows[1] % 8 == 0:  # no row ends inside a byte: the bytes are the same
        packed = bits.packed.reshape(new_rows[0], new_rows[1] // 8)
    else:
        flat = _bnn.unpack(bits.packed, old_rows[1], torch.bool)
        packed = _bnn.pack(flat.reshape(new_rows))
    return BitTensor(packed, new.shape, new.stride(), bits.dtype)


def _clone(bits: BitTensor, *, memory_format: torch.memory_format = torch.preserve_format) -> BitTensor:
    if memory_format is torch.preserve_format or bits.is_contiguous(memory_format=memory_format):
        return BitTensor(bits.packed.clone(), bits.shape, bits.stride(), bits.dtype)
    return _repacked(bits, lambda x: x.contiguous(memory_format=memory_format))


def _to_copy(
    bits: BitTensor,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
    **_: Any,
) -> Any:
    dtype = dtype or bits.dtype
    if not dtype.is_floating_point:
        return NotImplemented
    copy = _clone(bits, memory_format=memory_format or torch.preserve_format)
    packed = copy.packed.to(device=device or bits.device, non_blocking=non_blocking)
    return BitTensor(packed, copy.shape, copy.stride(), dtype)


def _slice(bits: BitTensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return _with_rows(bits, dim, bits.packed[slice(start, end, step)]) if _is_row_dim(bits, dim) else NotImplemented


def _split(bits: BitTensor, split_size: int, dim: int = 0) -> Any:
    if not _is_row_dim(bits, dim):
        return NotImplemented
    return [_with_rows(bits, dim, part) for part in torch.split(bits.packed, split_size)]


def _index_select(bits: BitTensor, dim: int, index: Tensor) -> Any:
    return _with_rows(bits, dim, bits.packed.index_select(0, index)) if _is_row_dim(bits, dim) else NotImplemented


def _is_row_dim(bits: BitTensor, dim: int) -> bool:
    return len(bits.shape) > 1 and memory_order(bits.shape, bits.stride())[0] == dim % len(bits.shape)


def _with_rows(bits: BitTensor, dim: int, packed: Tensor) -> BitTensor:
    shape, strides = list(bits.shape), list(bits.stride())
    # The stride of a single row may be anything; that of several is a row.
    strides[dim] = math.prod(shape) // shape[dim] if shape[dim] else strides[dim]
    shape[dim] = packed.shape[0]
    return BitTensor(packed, shape, strides, bits.dtype)


def _mm(a: Tensor, b: Tensor) -> Any:
    if not (isinstance(a, BitTensor) and isinstance(b, BitTensor)):
        return NotImplemented
    if not (_is_row_dim(a, 0) and _is_row_dim(b, 1) and a.shape[1] == b.shape[0]):
        return NotImplemented
    return _bnn.linear(a.packed, b.packed, a.shape[1]).to(a.dtype)


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    product = _mm(a, b) if beta == alpha == 1 else NotImplemented
    return product if product is NotImplemented else product.add_(bias)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    if not (isinstance(x, BitTensor) and isinstance(weight, BitTensor) and x.dim() == 4) or transposed:
        return NotImplemented
    x, weight = channels_last(x), channels_last(weight)
    window = Window.of(stride=stride, padding=padding, dilation=dilation, groups=groups)
    out = _bnn.conv2d(x.packed, x.shape, weight.packed, weight.shape, window).to(x.dtype)
    return out if bias is None else out.add_(bias.view(-1, 1, 1))


def channels_last(bits: BitTensor) -> BitTensor:
    """The same image with rows of (H, W, C), one a sample."""
    rows, channels, height, width = bits.shape
    if bits.stride() == (height * width * channels, 1, width * channels, channels) and len(bits.packed) == rows:
        return bits
    return _repacked(bits, lambda x: x.clone(memory_format=torch.channels_last))


def rows_first(bits: BitTensor) -> BitTensor:
    """The same matrix [N, K] with one row a sample."""
    if bits.stride() == (bits.shape[1], 1) and len(bits.packed) == bits.shape[0]:
        return bits
    return _repacked(bits, lambda x: x.contiguous())


def slice_rows(bits: BitTensor, rows: slice) -> BitTensor:
    """A slice of the batch, which shares its memory; without gradient. The batch must be the slowest dimension."""
    if not _is_row_dim(bits, 0):
        raise ValueError("the samples of a BitTensor are rows only where its first dimension is the slowest")
    return _with_rows(bits, 0, bits.packed[rows])


def cat_rows(parts: Sequence[BitTensor]) -> BitTensor:
    """Concatenates batches of one sample shape; the batch must be the slowest dimension of each."""
    return parts[0] if len(parts) == 1 else _with_rows(parts[0], 0, torch.cat([part.packed for part in parts]))


_QUERIES: Any = {Tensor.dim, Tensor.numel, Tensor.is_contiguous, Tensor.is_floating_point}  # make no tensor
_QUERIES |= {getattr(Tensor, name).__get__ for name in ("device", "dtype", "requires_grad")}
_FLATTENS_IMAGES: Any = (((1,), {}), ((1, -1), {}), ((), {"start_dim": 1}))


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: BitTensor) -> BitTensor:
        ctx.shape = x.shape
        in_order = memory_order(x.shape, x.stride()) == list(range(x.dim()))
        packed = x.packed if in_order else _bnn.pack(x.dense(torch.bool).flatten(1))
        features = math.prod(x.shape[1:])
        return BitTensor(packed, (x.shape[0], features), (features, 1), x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].reshape(ctx.shape)


class _MaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: BitTensor, window: PoolWindow) -> BitTensor:
        x = channels_last(x)
        ctx.save_for_backward(x.packed)
        ctx.shape, ctx.window = x.shape, window
        shape = _, channels, height, width = window.output_shape(x.shape)
        strides = (height * width * channels, 1, width * channels, channels)
        return BitTensor(_bnn.max_pool2d(x.packed, x.shape, window), shape, strides, x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (packed,) = ctx.saved_tensors
        return _bnn.max_pool2d_backward(grads[0], packed, ctx.shape, ctx.window), None


def _wants_dense_pool(input: Tensor, *args: Any, **kwargs: Any) -> bool:
    """Whether the call asks for what only the dense pooling does: indices, `ceil_mode`, an image without batch."""
    return input.dim() != 4 or any(args[4:]) or bool(kwargs.get("ceil_mode") or kwargs.get("return_indices"))


def _max_pool2d(
    input: BitTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    **_: bool,
) -> Tensor:
    window = PoolWindow.of(kernel_size, stride=stride, padding=padding, dilation=dilation)
    return _MaxPool2d.apply(input, window)  # type: ignore[no-any-return, no-untyped-call]


_LAYOUT_OPS = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.t.default,
    _aten.transpose.int,
    _aten.permute.default,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.detach.default,
    _aten.alias.default,
}

# Each returns NotImplemented where the bits do not help; the dense value is then used.
_BIT_OPS: dict[Any, Callable[..., Any]] = {
    _aten.clone.default: _clone,
    _aten._to_copy.default: _to_copy,
    _aten.slice.Tensor: _slice,
    _aten.split.Tensor: _split,
    _aten.index_select.default: _index_select,
    _aten.mm.default: _mm,
    _aten.addmm.default: _addmm,
    _aten.convolution.default: _convolution,
}

torch.serialization.add_safe_globals([BitTensor])  # torch.load takes one as it takes a tensor
