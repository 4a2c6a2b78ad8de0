"""The backward pass of a convolution of real images and its batch norm on the CPU.

Beside the results a call takes for each thread the product of 16 rows of 256 pixels, and at most 16 MiB for partial sums
of the weight's gradient.
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


@kernel
def normed_conv2d_backward_weight(
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
) -> tuple[Tensor, Tensor]:
    if grad.dtype not in STREAMS or not keeps_no_product(x, weight, Window(*window)):
        return specification.normed_conv2d_backward_weight(
            grad, codes, slopes, x, weight, window, moments, scale, gamma, eps
        )
    shape, geometry = convolution(x.shape, weight.shape, window)
    if grad.shape != shape:
        raise ValueError(f"the gradient must be {tuple(shape)} as the product, is {tuple(grad.shape)}")
    check_codes(codes, slopes, grad)
    outputs = shape[1]
    out, of_parameters = empty_channels_last(weight.shape, torch.float32), torch.empty((3, outputs))
    call(
        "normed_conv2d_backward_weight",
        *(channels_last(grad), codes.contiguous(), slopes, channels_last(x), channels_last(weight)),
        of_channels("moments", moments, 2, outputs),
        *(optional_per_channel(name, of, outputs) for name, of in (("scale", scale), ("gamma", gamma))),
        *(eps, out, of_parameters, *geometry, outputs, DTYPE_CODES[grad.dtype]),
    )
    return out, of_parameters


def keeps_no_product(x: Tensor, weight: Tensor, window: Window) -> bool:
    """Whether a kernel forms these gradients row by row, on the CPU: else the product is whole."""
    are_floats = all(of.dtype is torch.float32 and of.dim() == 4 for of in (x, weight))
    return are_floats and sums_floats(weight.shape, window) and weight.shape[0] % 8 == 0
