"""The operations on packed bits: every schema and shape rule is declared here, once.

A *packed* tensor is ``uint8 [rows, ceil(n / 8)]``. Bit ``i % 8`` (least significant first) of byte ``i // 8`` is
element ``i`` of the row; a set bit is +1, a clear bit is -1; the bits past ``n`` in a row's last byte are clear.
`bnn.bits.BitTensor` gives such a tensor its shape back and is what most code should use.

`bnn.ops.reference` is the specification, in plain torch, on every device. `bnn.ops.cpu` overrides it on the CPU
with native kernels where the package was built with them. Both are tested against each other.
"""

import torch
from torch import Tensor

SCHEMAS = {
    # float or int8 [rows, n] -> packed signs, sign(0) = +1, NaN is an error;
    # bool [rows, n] -> packed truth values
    "pack": "(Tensor x) -> Tensor",
    # packed [rows, ceil(n/8)] -> dtype [rows, n] of +1 and -1 (bool: truth values)
    "unpack": "(Tensor packed, int n, ScalarType dtype) -> Tensor",
    # packed [N, ceil(K/8)], packed [O, ceil(K/8)] -> float32 [N, O], exact
    "linear": "(Tensor x, Tensor weight, int features) -> Tensor",
    # packed rows in (H, W, C) order and (kh, kw, C/groups) order -> dtype [N, O, H', W'], channels last, exact
    "conv2d": (
        "(Tensor x, int[] x_shape, Tensor weight, int[] weight_shape,"
        " int[2] stride, int[2] padding, int[2] dilation, int groups, ScalarType dtype=float) -> Tensor"
    ),
    # packed rows in (H, W, C) order -> packed rows in (H', W', C) order; the maximum of a window is an OR
    "max_pool2d": (
        "(Tensor x, int[] x_shape, int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation) -> Tensor"
    ),
    # grad [N, C, H', W'] -> [N, C, H, W]; the gradient goes to the first maximum of a window, as in torch
    "max_pool2d_backward": (
        "(Tensor grad, Tensor x, int[] x_shape,"
        " int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation) -> Tensor"
    ),
}

for _name, _schema in SCHEMAS.items():
    torch.library.define(f"bnn::{_name}", _schema)


def packed_bytes(n: int) -> int:
    """Bytes of a packed row of `n` elements."""
    return (n + 7) // 8


def window_outputs(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """Output height and width of a convolution or pooling over an image of `size` (height, width)."""
    height, width = (
        (size[i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    )
    if height < 1 or width < 1:
        raise ValueError(f"a window of {kernel_size} with dilation {dilation} does not fit an image of {size}")
    return height, width


# --- shape rules, which also serve the meta device -----------------------------------------------------------------


def _pack_shape(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], packed_bytes(x.shape[1])), dtype=torch.uint8)


def _unpack_shape(packed: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    return packed.new_empty((packed.shape[0], n), dtype=dtype)


def _linear_shape(x: Tensor, weight: Tensor, features: int) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


def _conv2d_shape(
    x: Tensor,
    x_shape: list[int],
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    height, width = window_outputs(
        (x_shape[2], x_shape[3]),
        (weight_shape[2], weight_shape[3]),
        (stride[0], stride[1]),
        (padding[0], padding[1]),
        (dilation[0], dilation[1]),
    )
    out = x.new_empty((x_shape[0], weight_shape[0], height, width), dtype=dtype)
    return out.to(memory_format=torch.channels_last)


def _max_pool2d_shape(
    x: Tensor,
    x_shape: list[int],
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    height, width = window_outputs(
        (x_shape[2], x_shape[3]),
        (kernel_size[0], kernel_size[1]),
        (stride[0], stride[1]),
        (padding[0], padding[1]),
        (dilation[0], dilation[1]),
    )
    return x.new_empty((x_shape[0], packed_bytes(height * width * x_shape[1])), dtype=torch.uint8)


def _max_pool2d_backward_shape(
    grad: Tensor,
    x: Tensor,
    x_shape: list[int],
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    return grad.new_empty(x_shape).to(memory_format=torch.channels_last)


for _shape_rule in (
    _pack_shape,
    _unpack_shape,
    _linear_shape,
    _conv2d_shape,
    _max_pool2d_shape,
    _max_pool2d_backward_shape,
):
    torch.library.register_fake("bnn::" + _shape_rule.__name__[1:].removesuffix("_shape"), _shape_rule)

from bnn.ops import (  # noqa: E402  (registers the kernels)
    accumulate,
    adam,
    backward,
    cpu,
    cpu_backward,
    cpu_fused,
    fused,
    int8,
    real,
    reference,
)

__all__ = [
    "SCHEMAS",
    "accumulate",
    "adam",
    "backward",
    "cpu",
    "cpu_backward",
    "cpu_fused",
    "fused",
    "int8",
    "packed_bytes",
    "real",
    "reference",
    "window_outputs",
]
