"""Element-wise passes that take or give bits: norm with sign, pooling with its choices, sign with its window.

Schemas, shape rules and the specification in plain torch; `bnn.ops.cpu_fused` overrides it on the CPU. Sums over a
channel are formed in float64 and rounded to float32 once; every other step is rounded to float32 as it stands, or to
float64 where the input is float64. Packed rows are those of `bnn.ops`; rows of images are in (H, W, C) order.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops import _conv2d_shape, packed_bytes, window_outputs
from bnn.ops.int8 import round_at_random, scale_of
from bnn.ops.reference import pack, unpack

SCHEMAS = {
    "norm_sign": "(Tensor y, Tensor bias, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    "norm_sign_backward": "(Tensor grad, Tensor bits, Tensor inside, Tensor psi, Tensor levels) -> (Tensor, Tensor)",
    "norm_sign_backward_int8": (
        "(Tensor grad, Tensor bits, Tensor inside, Tensor psi, Tensor levels, int seed) -> (Tensor, Tensor, Tensor)"
    ),
    "max_pool2d_choices": "(Tensor x, int[2] kernel_size, int[2] stride, int[2] padding) -> (Tensor, Tensor)",
    "max_pool2d_scatter": (
        "(Tensor grad, Tensor choices, int[] x_shape, int[2] kernel_size, int[2] stride, int[2] padding) -> Tensor"
    ),
    "conv2d_max_pool2d": (
        "(Tensor x, int[] x_shape, Tensor weight, int[] weight_shape, int[2] stride, int[2] padding, int[2] dilation,"
        " int groups, int[2] pool_size, int[2] pool_stride, int[2] pool_padding) -> (Tensor, Tensor)"
    ),
    "sign_window": "(Tensor x, float window) -> (Tensor, Tensor)",
    "mask": "(Tensor grad, Tensor inside) -> Tensor",
}

MAX_TAPS = 256
"""Values of a pooling window: the number of a choice fits a byte."""

SPREAD_OF_NORMAL = math.sqrt(math.pi / 2)
"""Standard deviation of normal values over their mean absolute deviation."""

# Products before their pooling that exist at a time in the specification, about: 2 MiB of float16.
_CHUNK_ELEMENTS = 1 << 20

for _name, _schema in SCHEMAS.items():
    torch.library.define(f"bnn::{_name}", _schema)


# --- the specification ---------------------------------------------------------------------------------------------


def norm_sign(y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Signs of the l1 batch norm x = (y - mean) / (deviation + eps) + bias, for each channel.

    Args:
        y: float [N, C, ...].
        bias: float [C].
        eps: added to the deviation.

    Returns:
        The packed signs of x and the packed truth values of |x| <= 1, with N rows of (..., C); and float32 [C] (or
        float64, if `y` is) mean and deviation sqrt(pi/2) mean|y - mean|, the standard deviation of normal values.

    Raises:
        NonFiniteError: the norm of `y` is not a number.
    """
    dtype = _statistics_dtype(y)
    y = y.movedim(1, -1)
    mean = _channel_means(y).to(dtype)
    deviation = (_channel_means((y - mean).abs()) * SPREAD_OF_NORMAL).to(dtype)
    x = (y - mean) / (deviation + eps) + bias.to(dtype)
    check_normalised(deviation, bias, eps)
    return pack(x.flatten(1)), pack((x.abs() <= 1).flatten(1)), mean, deviation


def norm_sign_backward(
    grad: Tensor, bits: Tensor, inside: Tensor, psi: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of `norm_sign`, with one of four levels in the place of each normalised value.

    With g = grad where `inside` and zero elsewhere, q the level that the sign and `inside` tell, and means over a
    channel, dL/dy = (g - mean(g) - mean(g q) q) / psi and dL/dbias = sum(g): the gradient of a batch norm, as Wang et
    al. (arXiv 2102.04270, sec. 5) approximate it with two levels.

    Args:
        grad: float [N, C, ...], for the signs.
        bits: the first result of `norm_sign`.
        inside: the second.
        psi: float [C], deviation + eps.
        levels: float [4, C], of x < -1, -1 <= x < 0, 0 <= x <= 1 and 1 < x.

    Returns:
        dL/dy of `grad`'s shape and dtype, its memory in (N, ..., C) order, and dL/dbias [C] of the dtype of psi.
    """
    passed, offset, _ = _norm_gradient(grad, bits, inside, levels, psi.dtype)
    grad_y = ((passed - offset) / psi).to(grad.dtype)
    return grad_y.contiguous().movedim(-1, 1), _channel_sums(passed).to(psi.dtype)


def _norm_gradient(
    grad: Tensor, bits: Tensor, inside: Tensor, levels: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """g [N, ..., C], what the norm takes off each, and what it takes off at each level, [4, C]."""
    last = grad.movedim(1, -1)
    row_elements = math.prod(last.shape[1:])
    signs, window = (unpack(packed, row_elements, torch.bool).view(last.shape) for packed in (bits, inside))
    passed = torch.where(window, last, 0)
    mean, by_sign = _channel_means(passed), _channel_means(torch.where(signs, passed, -passed))
    wide = levels.double()
    along = wide[1] * ((mean - by_sign) / 2) + wide[2] * ((mean + by_sign) / 2)
    offsets = (mean + along * wide).to(dtype)
    of_minus, of_plus = torch.where(window, offsets[1], offsets[0]), torch.where(window, offsets[2], offsets[3])
    return passed, torch.where(signs, of_plus, of_minus), offsets


def norm_sign_backward_int8(
    grad: Tensor, bits: Tensor, inside: Tensor, psi: Tensor, levels: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`norm_sign_backward` whose dL/dy is formed in float32 and rounded at random to int8, as `bnn.ops.int8` does.

    The scale is 1/127 of a bound of |dL/dy| instead of the largest value, so that one pass less is needed: the largest
    of (max|g| + the largest |mean(g) + mean(g q) q| of the four levels) / psi of all channels.

    Args:
        grad: as in `norm_sign_backward`, as are the arguments that follow.
        bits: see `grad`.
        inside: see `grad`.
        psi: see `grad`.
        levels: see `grad`.
        seed: of the rounding.

    Returns:
        dL/dy as int8 q, its memory in (N, ..., C) order, and the scale of q, float32 []; and dL/dbias [C].

    Raises:
        NonFiniteError: dL/dy has a NaN or an infinity.
    """
    passed, offset, offsets = _norm_gradient(grad.float(), bits, inside, levels, psi.dtype)
    largest = passed.abs().flatten(0, -2).amax(0) if passed.numel() else torch.zeros_like(psi)
    bound = ((largest + offsets.abs().amax(0)) / psi).amax()
    scale, inverse = scale_of(bound)
    in_steps = (passed - offset) * (inverse / psi)
    q = round_at_random(in_steps.contiguous().movedim(-1, 1), seed)
    return q, scale, _channel_sums(passed).to(psi.dtype)


def max_pool2d_choices(
    x: Tensor, kernel_size: list[int], stride: list[int], padding: list[int]
) -> tuple[Tensor, Tensor]:
    """Max-pooling, and which value of each window was the largest: the first of equals, the last NaN.

    Args:
        x: float [N, C, H, W].
        kernel_size: as in `torch.nn.functional.max_pool2d`, as are the arguments that follow; at most 256 values.
        stride: distance of the windows.
        padding: at most half the kernel.

    Returns:
        [N, C, H', W'] of `x`'s dtype, channels last; and uint8 [planes, N, ceil(H' W' C / 8)], whose plane p holds
        bit p of each choice. A choice is the value's number in its window, in row order.
    """
    window = (kernel_size, stride, padding)
    shape = pooled_shape(x.shape, *window)
    values, index = torch.ops.aten.max_pool2d_with_indices(x.contiguous(memory_format=torch.channels_last), *window)
    top, left = (torch.arange(shape[2 + i], device=x.device) * stride[i] - padding[i] for i in (0, 1))
    choice = (index // x.shape[3] - top.unsqueeze(1)) * kernel_size[1] + index % x.shape[3] - left
    rows = choice.movedim(1, -1).flatten(1)
    planes = values.new_empty(choices_shape(shape, kernel_size), dtype=torch.uint8)
    for bit, plane in enumerate(planes):
        plane.copy_(pack((rows >> bit & 1).bool()))
    return values.contiguous(memory_format=torch.channels_last), planes


def max_pool2d_scatter(
    grad: Tensor, choices: Tensor, x_shape: list[int], kernel_size: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient of `max_pool2d_choices`: each window's goes to its choice; sums are formed in the windows' order.

    Args:
        grad: float [N, C, H', W'], or int8 where windows do not overlap.
        choices: the second result of `max_pool2d_choices`; the other arguments are as there.
        x_shape: (N, C, H, W).
        kernel_size: as in `max_pool2d_choices`.
        stride: as in `max_pool2d_choices`.
        padding: as in `max_pool2d_choices`.

    Returns:
        [N, C, H, W] of `grad`'s dtype, channels last.
    """
    images, channels, height, width = shape = pooled_shape(x_shape, kernel_size, stride, padding)
    check_choices(grad, choices, shape, kernel_size, stride)
    choice = torch.zeros((images, height, width, channels), dtype=torch.uint8, device=grad.device)
    for bit, plane in enumerate(choices):
        choice += unpack(plane, height * width * channels, torch.bool).view(choice.shape).byte() << bit
    choice = choice.movedim(-1, 1)
    padded_size = [size + 2 * pad for size, pad in zip(x_shape[2:], padding, strict=True)]
    padded = grad.new_zeros((images, *padded_size, channels)).movedim(-1, 1)
    # The last value of a window first: where windows overlap, an element is then reached by the first of them first.
    for number in reversed(range(math.prod(kernel_size))):
        row, column = divmod(number, kernel_size[1])
        to = padded[:, :, row :: stride[0], column :: stride[1]][:, :, :height, :width]
        to += torch.where(choice == number, grad, 0)
    inner = padded[:, :, padding[0] : padding[0] + x_shape[2], padding[1] : padding[1] + x_shape[3]]
    return inner.contiguous(memory_format=torch.channels_last)


def conv2d_max_pool2d(
    x: Tensor,
    x_shape: list[int],
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    pool_size: list[int],
    pool_stride: list[int],
    pool_padding: list[int],
) -> tuple[Tensor, Tensor]:
    """`max_pool2d_choices` of the float16 result of a `bnn::conv2d`, of which few images exist at a time.

    Args:
        x: packed images, as in `bnn.ops.reference.conv2d`, as are the arguments that follow.
        x_shape: see `x`.
        weight: see `x`.
        weight_shape: see `x`.
        stride: see `x`.
        padding: see `x`.
        dilation: see `x`.
        groups: see `x`.
        pool_size: the kernel of the pooling.
        pool_stride: its stride.
        pool_padding: its padding.

    Returns:
        See `max_pool2d_choices`.
    """
    step = max(1, _CHUNK_ELEMENTS // (weight_shape[0] * math.prod(x_shape[2:])))
    parts = []
    for part in torch.split(x, step):
        arguments = ([len(part), *x_shape[1:]], weight, weight_shape, stride, padding, dilation, groups)
        products = torch.ops.bnn.conv2d(part, *arguments, torch.float16)
        parts.append(max_pool2d_choices(products, pool_size, pool_stride, pool_padding))
    values, choices = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(choices, 1)


def sign_window(x: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Packs the signs of a float matrix, and where |x| <= window.

    Args:
        x: float [rows, n]; `sign(0)` is +1.
        window: rounded to the dtype of `x`.

    Returns:
        uint8 [rows, ceil(n / 8)], twice.

    Raises:
        NonFiniteError: `x` has a NaN.
    """
    return pack(x), pack(x.abs() <= torch.tensor(window, dtype=x.dtype, device=x.device))


def mask(grad: Tensor, inside: Tensor) -> Tensor:
    """The elements of a float matrix [rows, n] whose bit in `inside` [rows, ceil(n / 8)] is set; zero elsewhere."""
    return torch.where(unpack(inside, grad.shape[1], torch.bool), grad, 0)


def check_normalised(deviation: Tensor, bias: Tensor, eps: float) -> None:
    """Refuses a norm that gives values which are not numbers: their signs would be lost."""
    if torch.isnan(deviation / (deviation + eps) + bias).any():
        raise NonFiniteError("cannot take the sign of NaN: the tensor to normalise has NaN or infinite values, or none")


def pooled_shape(
    x_shape: Sequence[int], kernel_size: list[int], stride: list[int], padding: list[int]
) -> tuple[int, int, int, int]:
    """Shape of a pooled image; refuses a window of all padding, and one of more values than a byte can number."""
    if min(*kernel_size, *stride) < 1 or math.prod(kernel_size) > MAX_TAPS:
        raise ValueError(f"a window has 1 to {MAX_TAPS} values, got a kernel of {kernel_size} and stride {stride}")
    if any(not 0 <= 2 * pad <= kernel for pad, kernel in zip(padding, kernel_size, strict=True)):
        raise ValueError(f"padding {padding} is not from 0 to half of the kernel {kernel_size}")
    images, channels, height, width = x_shape
    kernel, step, pad = ((pair[0], pair[1]) for pair in (kernel_size, stride, padding))
    return images, channels, *window_outputs((height, width), kernel, step, pad, (1, 1))


def choices_shape(pooled: Sequence[int], kernel_size: list[int]) -> tuple[int, int, int]:
    """Shape of the choices' planes, see `max_pool2d_choices`, for values of the shape `pooled`."""
    return (math.prod(kernel_size) - 1).bit_length(), pooled[0], packed_bytes(math.prod(pooled[1:]))


def check_choices(
    grad: Tensor, choices: Tensor, pooled: Sequence[int], kernel_size: list[int], stride: list[int]
) -> None:
    """Refuses a gradient or choices of another pooling, and sums that int8 may not hold."""
    if grad.dtype is torch.int8 and any(step < kernel for step, kernel in zip(stride, kernel_size, strict=True)):
        raise ValueError(f"an int8 gradient needs windows that do not overlap, got {kernel_size}, stride {stride}")
    if tuple(grad.shape) != tuple(pooled):
        raise ValueError(f"grad must be {tuple(pooled)}, is {tuple(grad.shape)}")
    planes = choices_shape(pooled, kernel_size)
    if choices.dtype is not torch.uint8 or tuple(choices.shape) != planes:
        raise ValueError(f"choices must be torch.uint8 {planes}, are {choices.dtype} {tuple(choices.shape)}")


def _statistics_dtype(y: Tensor) -> torch.dtype:
    return torch.promote_types(y.dtype, torch.float32)


def _channel_sums(last: Tensor) -> Tensor:
    return last.sum(tuple(range(last.dim() - 1)), dtype=torch.float64)


def _channel_means(last: Tensor) -> Tensor:
    return _channel_sums(last) / math.prod(last.shape[:-1])


# --- shape rules ---------------------------------------------------------------------------------------------------


def _norm_sign_shape(y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = (y.shape[0], packed_bytes(math.prod(y.shape[1:])))
    bits, inside = (y.new_empty(rows, dtype=torch.uint8) for _ in range(2))
    mean, deviation = (y.new_empty(y.shape[1], dtype=_statistics_dtype(y)) for _ in range(2))
    return bits, inside, mean, deviation


def _norm_sign_backward_shape(
    grad: Tensor, bits: Tensor, inside: Tensor, psi: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad.movedim(1, -1).contiguous()).movedim(-1, 1), torch.empty_like(psi)


def _norm_sign_backward_int8_shape(
    grad: Tensor, bits: Tensor, inside: Tensor, psi: Tensor, levels: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    q = torch.empty_like(grad.movedim(1, -1).contiguous(), dtype=torch.int8).movedim(-1, 1)
    return q, grad.new_empty((), dtype=torch.float32), torch.empty_like(psi)


def _max_pool2d_choices_shape(
    x: Tensor, kernel_size: list[int], stride: list[int], padding: list[int]
) -> tuple[Tensor, Tensor]:
    shape = pooled_shape(x.shape, kernel_size, stride, padding)
    values = x.new_empty(shape).to(memory_format=torch.channels_last)
    return values, x.new_empty(choices_shape(shape, kernel_size), dtype=torch.uint8)


def _max_pool2d_scatter_shape(
    grad: Tensor, choices: Tensor, x_shape: list[int], kernel_size: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    return grad.new_empty(x_shape).to(memory_format=torch.channels_last)


def _conv2d_max_pool2d_shape(
    x: Tensor,
    x_shape: list[int],
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    pool_size: list[int],
    pool_stride: list[int],
    pool_padding: list[int],
) -> tuple[Tensor, Tensor]:
    convolution = (weight, weight_shape, stride, padding, dilation, groups, torch.float16)
    products = _conv2d_shape(x, x_shape, *convolution)
    return _max_pool2d_choices_shape(products, pool_size, pool_stride, pool_padding)


def _sign_window_shape(x: Tensor, window: float) -> tuple[Tensor, Tensor]:
    bits, inside = (x.new_empty((x.shape[0], packed_bytes(x.shape[1])), dtype=torch.uint8) for _ in range(2))
    return bits, inside


def _mask_shape(grad: Tensor, inside: Tensor) -> Tensor:
    return grad.new_empty(grad.shape)


for _kernel, _shape_rule in (
    (norm_sign, _norm_sign_shape),
    (norm_sign_backward, _norm_sign_backward_shape),
    (norm_sign_backward_int8, _norm_sign_backward_int8_shape),
    (max_pool2d_choices, _max_pool2d_choices_shape),
    (max_pool2d_scatter, _max_pool2d_scatter_shape),
    (conv2d_max_pool2d, _conv2d_max_pool2d_shape),
    (sign_window, _sign_window_shape),
    (mask, _mask_shape),
):
    torch.library.register_fake(f"bnn::{_kernel.__name__}", _shape_rule)
    torch.library.impl(f"bnn::{_kernel.__name__}", "CompositeExplicitAutograd")(_kernel)
