"""The backward pass of a convolution of real numbers and its batch norm on the CPU.

Beside the results a call takes, for each thread, the product of 4,096 pixels and two rows, and the gradient of an image
where kernels overlap; at most 4 MiB for partial sums of the weight's gradient; and the weight twice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import normed_conv as specification
from bnn.ops.cpu.arguments import DTYPE_CODES, convolution, optional_per_channel
from bnn.ops.cpu.batch_norm import STREAMS, check_codes, of_channels
from bnn.ops.cpu.native import call, kernel
from bnn.ops.cpu.products import sums_floats
from bnn.ops.geometry import Window
from bnn.ops.memory import channels_last, empty_channels_last

_MOST_OF_IMAGE = 1 << 18  # a gradient of float32 for each thread


@kernel
def normed_conv2d_backward(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    x: Tensor,
    weight: Tensor,
    window: Sequence[int],
    moments: Tensor,
    scale: Tensor | None,
    gamma: Tensor | None,
    eps: float,
    with_input: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if grad.dtype not in STREAMS or not keeps_no_product(x, weight, Window(*window), with_input=with_input):
        return specification.normed_conv2d_backward(
            grad, codes, slopes, x, weight, window, moments, scale, gamma, eps, with_input
        )
    shape, geometry = convolution(x.shape, weight.shape, window)
    if grad.shape != shape:
        raise ValueError(f"the gradient must be {tuple(shape)} as the product, is {tuple(grad.shape)}")
    check_codes(codes, slopes, grad)
    outputs = shape[1]
    of_x = empty_channels_last(x.shape if with_input else (0, *x.shape[1:]), x.dtype)
    of_weight, of_parameters = empty_channels_last(weight.shape, torch.float32), torch.empty((3, outputs))
    call(
        "normed_conv2d_backward",
        *(channels_last(grad), codes.contiguous(), slopes, channels_last(x), channels_last(weight)),
        of_channels("moments", moments, 2, outputs),
        *(optional_per_channel(name, of, outputs) for name, of in (("scale", scale), ("gamma", gamma))),
        *(eps, of_x if with_input else 0, of_weight, of_parameters),
        *(*geometry, outputs, DTYPE_CODES[grad.dtype], DTYPE_CODES[x.dtype]),
    )
    return of_x, of_weight, of_parameters


def keeps_no_product(x: Tensor, weight: Tensor, window: Window, *, with_input: bool) -> bool:
    """Whether a kernel forms these gradients row by row, on the CPU: else the product is whole."""
    has_dtypes = x.dtype in STREAMS and weight.dtype is torch.float32
    has_shapes = x.dim() == weight.dim() == 4 and weight.shape[0] % 8 == 0
    if not has_dtypes or not has_shapes or not sums_floats(weight.shape, window):
        return False
    return not with_input or window.is_of_pixels(weight.shape) or x[:1].numel() <= _MOST_OF_IMAGE
