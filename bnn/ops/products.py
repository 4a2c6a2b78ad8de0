"""Products with ±1 weights: of ±1 inputs, which are exact, and of real images, as in the first layer of a network.

Packed operands have one row (see `bnn.ops.packing`) for each sample or output. `x` is a matrix [N, K], or images of
`x_shape` (N, C, H, W) in rows of (H, W, C) order; `weight` is a matrix [O, K], or kernels of `weight_shape`
(O, C / groups, kh, kw) in rows of (kh, kw, C / groups) order. `window` is a `bnn.ops.geometry.Window`. Images come out
as [N, O, H', W'] in channels-last memory format.

The product of two ±1 vectors of K elements is K - 2 popcount(a xor b). Here it is formed by unpacking and a float32
product, which is exact while K < 2**24 and is the same number. Sums of real numbers depend on the order of the work in
their last bits; they depend on the number of threads in no kernel.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.ops.geometry import Window
from bnn.ops.memory import converted, empty_channels_last
from bnn.ops.operation import operation
from bnn.ops.packing import empty_images, unpack, unpack_images

_EXACT_IN_FLOAT32 = 2**24
# What exists at a time of real images, or of their products, that are worked off in parts: 1 MiB of float32.
_CHUNK_ELEMENTS = 1 << 18


@operation(
    "(Tensor x, Tensor weight, int features) -> Tensor",
    shape=lambda x, weight, features: x.new_empty((len(x), len(weight)), dtype=torch.float32),
)
def linear(x: Tensor, weight: Tensor, features: int) -> Tensor:
    """Product of packed ±1 matrices: x [N, K] times weight [O, K] transposed.

    Args:
        x: packed.
        weight: packed.
        features: K, below 2**24.

    Returns:
        float32 [N, O], exact.
    """
    check_exact(features)
    return F.linear(unpack(x, features, torch.float32), unpack(weight, features, torch.float32))


@operation(
    "(Tensor x, int[] x_shape, Tensor weight, int[] weight_shape, int[] window, ScalarType dtype=float) -> Tensor",
    shape=lambda x, x_shape, weight, weight_shape, window, dtype=torch.float32: empty_images(
        x, Window(*window).output_shape(x_shape, weight_shape), dtype
    ),
)
def conv2d(
    x: Tensor,
    x_shape: Sequence[int],
    weight: Tensor,
    weight_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Convolution of packed ±1 images. The padding is a true zero: padded taps add nothing.

    Args:
        x: packed.
        x_shape: (N, C, H, W).
        weight: packed.
        weight_shape: (O, C / groups, kh, kw); below 2**24 elements an output.
        window: of the convolution.
        dtype: of the result; float16 is exact up to 2048, and of a kernel with an even number of values up to 4096.

    Returns:
        `dtype` [N, O, H', W']; in float32 exact.
    """
    check_exact(math.prod(weight_shape[1:]))
    images, kernels = unpack_images(x, x_shape), unpack_images(weight, weight_shape)
    out = F.conv2d(images, kernels, None, *Window(*window).for_torch)
    # A sum of padded taps alone may be -0, which no kernel of integers gives.
    return out.contiguous(memory_format=torch.channels_last).add_(0.0).to(dtype)


@operation(
    "(Tensor x, Tensor weight, int[] weight_shape, int[] window, ScalarType dtype) -> Tensor",
    shape=lambda x, weight, weight_shape, window, dtype: empty_images(
        x, Window(*window).output_shape(x.shape, weight_shape), dtype
    ),
)
def real_conv2d(
    x: Tensor, weight: Tensor, weight_shape: Sequence[int], window: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """Convolution of real images and ±1 weights; the padding is zero.

    Args:
        x: float [N, C, H, W], not packed.
        weight: packed.
        weight_shape: (O, C / groups, kh, kw).
        window: of the convolution.
        dtype: of the result, to which it is rounded.

    Returns:
        `dtype` [N, O, H', W'].
    """
    return float_conv2d(x, unpack_images(weight, weight_shape).to(x.dtype), window, dtype)


@operation(
    "(Tensor x, Tensor weight, int[] window, ScalarType dtype) -> Tensor",
    shape=lambda x, weight, window, dtype: empty_images(x, Window(*window).output_shape(x.shape, weight.shape), dtype),
)
def float_conv2d(x: Tensor, weight: Tensor, window: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Convolution of real images and real weights; the padding is zero.

    Args:
        x: float [N, C, H, W], of the weight's dtype or a narrower one.
        weight: float [O, C / groups, kh, kw]; the products are formed in its dtype.
        window: of the convolution.
        dtype: of the result, to which it is rounded.

    Returns:
        `dtype` [N, O, H', W'].
    """
    out = empty_channels_last(Window(*window).output_shape(x.shape, weight.shape), dtype, x.device)
    images = part_images(max(x[:1].numel(), out[:1].numel()))
    for part, of_part in zip(torch.split(x, images), torch.split(out, images), strict=True):
        of_part.copy_(F.conv2d(converted(part, weight.dtype), weight, None, *Window(*window).for_torch))
    return out


def pixels_of(x: Tensor) -> Tensor:
    """[N, C, H, W] as [N H W, C], a view where the channels lie last."""
    return x.movedim(1, -1).flatten(0, 2)


def part_images(elements: int) -> int:
    """How many images, of so many elements each, to work off at a time."""
    return max(1, _CHUNK_ELEMENTS // max(1, elements))


def check_exact(terms: int) -> None:
    """Refuses sums of so many terms of ±1 that float32 cannot count them."""
    if terms >= _EXACT_IN_FLOAT32:
        raise ValueError(f"a product over {terms} elements is not exact in float32; split it below 2**24")
