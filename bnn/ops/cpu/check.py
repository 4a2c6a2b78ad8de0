"""What is tried of an instruction set when it is loaded: every function of its table beside that of the set `generic`.

A compiler, an emulator or a processor can be wrong; then the reference takes over.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Arguments = Sequence[Any]
"""As a function of the extension takes them, tensors in the place of pointers: those that it writes are zeros."""

_SHAPE, _OUTPUTS, _OUT = (3, 40, 5, 6), 19, (3, 7)
_PIXELS, _CHANNELS = 30, 40
_WINDOW = ((3, 2), (2, 1), (1, 1), (1, 1), _OUT)
_POOL = (_SHAPE, (2, 2), (2, 2), (0, 0), (1, 1), (2, 3))
_PASS = (3, _PIXELS, _CHANNELS)
_INFINITY, _ONE, _MINUS_ONE = 0x7F80_0000, 0x3F80_0000, 0xBF80_0000  # bits of float32
_KEY = 7
_POINTS = 7_169  # of a table over the odds of a probability


def invoke(extension: ModuleType, isa: str, threads: int, name: str, *arguments: Any) -> Any:
    """Calls a function of the extension, to which tensors go as pointers."""
    pointers = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    return getattr(extension, name)(isa, threads, *pointers)


def wrong_function(extension: ModuleType, isa: str) -> str | None:
    """The first function of a set whose results are not those of `generic`; None where all are the same."""
    calls = {**product_calls(), **pooling_calls(), **element_calls(), **norm_calls(), **block_calls()}
    return next((name for name, arguments in calls.items() if _differs(extension, isa, name, arguments)), None)


def _differs(extension: ModuleType, isa: str, name: str, arguments: Arguments) -> bool:
    results = []
    for of in (isa, "generic"):
        given = [x.clone() if isinstance(x, Tensor) else x for x in arguments]
        results.append((invoke(extension, of, 1, name, *given), [x for x in given if isinstance(x, Tensor)]))
    (returned, tensors), (expected, right) = results
    return returned != expected or not all(map(_same, tensors, right))


def _same(x: Tensor, right: Tensor) -> bool:
    # Sums of real numbers go in an order that depends on the registers.
    return torch.allclose(x, right, 1e-4, 1e-4) if x.is_floating_point() else torch.equal(x, right)


def some_bits(rows: int, n: int) -> Tensor:
    """Packed rows of n elements, n a multiple of 8 unless what is behind a row's end is of no matter."""
    return (torch.arange(rows * -(-n // 8)) ** 2 * 31 % 251).to(torch.uint8).view(rows, -1)


def _reals(*shape: int) -> Tensor:
    count = torch.Size(shape).numel()
    return ((torch.arange(count) ** 2 * 37 % 101 - 50) / 16).view(shape)


def _bytes(*shape: int) -> Tensor:
    return (torch.arange(torch.Size(shape).numel()) ** 2 * 31 % 255 - 127).to(torch.int8).view(shape)


def product_calls() -> dict[str, Arguments]:
    """Of products and their gradients: partial tiles, padding and a stride."""
    x, weight = some_bits(3, _PIXELS * _CHANNELS), some_bits(_OUTPUTS, 6 * _CHANNELS)
    image, kernel = _reals(3, _PIXELS, 4), _reals(_OUTPUTS, 24)
    q, out = _bytes(3, *_OUT, _OUTPUTS), torch.zeros(3, *_OUT, _OUTPUTS)
    of_x, of_weight, of_kernel = (
        torch.zeros(3, _PIXELS, _CHANNELS),
        torch.zeros(_OUTPUTS, 240),
        torch.zeros(_OUTPUTS, 24),
    )
    bits, reals = (_SHAPE, *_WINDOW), ((3, 4, 5, 6), *_WINDOW)
    pool = ((3, _OUTPUTS, *_OUT), (2, 2), (2, 2), (0, 0), (1, 1), (1, 3))
    pooled, choices = torch.zeros(3, 3, _OUTPUTS, dtype=torch.float16), torch.zeros(2, 3, 8, dtype=torch.uint8)
    return {
        "linear": (some_bits(9, 136), weight, torch.zeros(9, 7), 9, 7, 136),
        "conv2d": (x, weight, out, *bits, _OUTPUTS, 1, 0),
        "conv2d_max_pool2d": (x, weight, pooled, choices, *bits, *pool, 1, 2),
        "conv2d_backward_input": (q, 0.5, weight, of_x, *bits, _OUTPUTS, 1, 4, 0, [], 0, 0),
        "conv2d_backward_weight": (q, 0.5, x, of_weight, *bits, _OUTPUTS, 1, 4),
        "conv2d_backward_weight_ternary": (q, 0.5, x, of_weight, *bits, _OUTPUTS, 1, 4, _KEY),
        "conv2d_backward_weight_sign": (
            q,
            x,
            torch.zeros(_OUTPUTS, 30, dtype=torch.uint8),
            *bits,
            _OUTPUTS,
            1,
            _KEY,
            5,
        ),
        "real_conv2d": (image, some_bits(_OUTPUTS, 24), out, *reals, _OUTPUTS, 0),
        "real_conv2d_backward_weight": (q, image, of_kernel, *reals, _OUTPUTS),
        "float_conv2d": (image, kernel, out, *reals, _OUTPUTS, 0, 0),
        "float_conv2d_backward_weight": (q.float(), image, of_kernel, *reals, _OUTPUTS),
        "normed_conv2d_backward": _normed_convolution(),
    }


def _normed_convolution() -> Arguments:
    """Of kernels of one pixel, so that there is a gradient of the input."""
    pixels, outputs = (3, _PIXELS), 24
    grad, x, weight = _reals(*pixels, outputs), _reals(*pixels, 4).flip(0), _reals(outputs, 4)
    moments, gamma = _reals(2, outputs).abs() + 0.5, _reals(outputs)
    results = torch.zeros(*pixels, 4), torch.zeros(outputs, 4), torch.zeros(3, outputs)
    geometry = (3, 4, 5, 6), (1, 1), (1, 1), (0, 0), (1, 1), (5, 6)
    codes, slopes = some_bits(3, _PIXELS * outputs), [0.25, 1.0]
    return (grad, codes, slopes, x, weight, moments, 0, gamma, 1e-5, *results, *geometry, outputs, 0, 0)


def pooling_calls() -> dict[str, Arguments]:
    """Of poolings."""
    x, image, grad = some_bits(3, _PIXELS * _CHANNELS), _reals(3, _PIXELS, _CHANNELS), _reals(3, 6, _CHANNELS)
    out, pooled = torch.zeros_like(image), torch.zeros_like(grad)
    bits = torch.zeros(3, 30, dtype=torch.uint8)
    return {
        "max_pool2d": (x, bits, *_POOL),
        "max_pool2d_backward": (grad, x, out, *_POOL, 4),
        "max_pool2d_choices": (image, pooled, torch.stack((bits, bits)), *_POOL, 2, 0),
        "max_pool2d_scatter": (grad, some_bits(6, 240), out, *_POOL, 2, 0),
        "window_means": (image, pooled, 3, 6, _CHANNELS, 1, 5, 0),
        "window_means_backward": (grad, image, out, 3, 6, _CHANNELS, 1, 5, 0),
    }


def element_calls() -> dict[str, Arguments]:
    """Of what goes element by element: rows with an end."""
    rows, n = 3, 44
    x, signs, bits = _reals(rows, n), some_bits(rows, n), torch.zeros(rows, 6, dtype=torch.uint8)
    halves, out = x.half() / 4, torch.zeros(rows, n)
    of_adam = (halves, halves / 4, halves.abs())
    adam = (rows, n, 0.1, 0.9, 0.1, 0.01, 1e-8, 0.02, _KEY)
    numbers = (torch.arange(2 * rows * n) ** 2 * 2_654_435_761 % 2**31).int()
    units = torch.arange(4 * _POINTS, dtype=torch.int32)
    return {
        "pack": (x, bits, rows, n, 4, _INFINITY),
        "unpack": (signs, out, rows, n, 4, _ONE, _MINUS_ONE),
        "sign_window": (x, bits, bits, rows, n, 4, _INFINITY, _ONE),
        "mask": (x, signs, out, rows, n, 4),
        "largest_magnitude": (x, rows * n, 4),
        "quantize_integers": (x, torch.zeros(rows * n, dtype=torch.int8), rows * n, 4, 20.0, 127, _KEY),
        "step_by_signs": (_bytes(rows, n), signs, rows, n, 1, 20_000, 3, _KEY),
        "adam_by_rows": (
            *(_bytes(rows, n), _reals(rows).abs(), x.bfloat16(), rows, n),
            *(5.0, 0.9, 0.19, 1e-8, 20.0, 3, _KEY),
        ),
        "adam_by_signs": (*of_adam, signs, *adam),
        "adam_by_values": (*of_adam, x, *adam),
        "pulse_pairs": (
            *(signs, signs.flip(0), x / 2, numbers, rows, n, units[: 2 * _POINTS] / (2 * _POINTS), units, units),
            *(1.0, 0.1, False, torch.zeros(3, dtype=torch.int64)),
        ),
    }


def norm_calls() -> dict[str, Arguments]:
    """Of the passes of norms."""
    y, grad, out = _reals(3, _PIXELS, _CHANNELS), _reals(3, _PIXELS, _CHANNELS).flip(0), torch.zeros(*_PASS)
    codes, bits = some_bits(3, _PIXELS * _CHANNELS), torch.zeros(3, 150, dtype=torch.uint8)
    one, four = _reals(_CHANNELS).abs() + 0.5, _reals(4, _CHANNELS)
    zeros, slopes = torch.zeros(3, _CHANNELS), [0.25, 1.0]
    backward, sums = (grad, codes, slopes, y), torch.zeros(3, 2, _CHANNELS, dtype=torch.float64)
    return {
        "norm_sign": (y, one, 1e-5, bits, bits, zeros[0], zeros[0], *_PASS, 0),
        "norm_sign_backward": (grad, codes, codes, one, four, out, zeros[0], *_PASS, 0),
        "batch_statistics": (y, 0, one, one, 1e-5, one, one, 0.1, zeros[:2], zeros[:2], *_PASS, 0),
        "row_moments": (y, sums, *_PASS, 0),
        "row_norm_gradients": (*backward, one, sums, sums.float(), *_PASS, 0, 0),
        "norm_clamp": (y, one, one, grad, out, bits, -1.0, 1.0, *_PASS, 0, 0, 0),
        "sign_codes": (y, one, one, [1.0], bits, bits, *_PASS, 0),
        "norm_gradient_terms": (
            *backward,
            four[:2].abs() + 0.5,
            0,
            one,
            1e-5,
            zeros,
            zeros[0, :1],
            zeros,
            *_PASS,
            0,
            0,
        ),
        "norm_gradient": (*backward, four[:3], out, *_PASS, 0, 0, 0),
        "norm_gradient_integers": (
            *backward,
            four[:3],
            20.0,
            out.to(torch.int8),
            zeros[0, :1],
            *_PASS,
            0,
            0,
            127,
            _KEY,
            2,
        ),
        "pass_slopes": (grad, codes, slopes, out, *_PASS, 0),
    }


def block_calls() -> dict[str, Arguments]:
    """Of blocks: real inputs, a shortcut, and the gradient of signs."""
    image, bits = _reals(3, _PIXELS, _CHANNELS), torch.zeros(3, 150, dtype=torch.uint8)
    codes, weight = torch.zeros_like(bits), some_bits(_OUTPUTS, 6 * _CHANNELS)
    no_pool = (0, 0, (3, _OUTPUTS, *_OUT), (1, 1), (1, 1), (0, 0), (1, 1), _OUT)
    of_product = (_SHAPE, *_WINDOW, _OUTPUTS, 1, False, *no_pool)
    shape = (3, 21, _OUTPUTS)
    y, grad = torch.zeros(shape, dtype=torch.bfloat16), _reals(*shape)  # the memory of float16 ends as bfloat16
    one, zeros = _reals(_OUTPUTS).abs() + 0.5, torch.zeros(3, _OUTPUTS)
    q, of_weight = torch.zeros(shape, dtype=torch.int8), torch.zeros(_OUTPUTS, 240)
    return {
        "block": (
            *(image, 0, [1.0], bits, codes, weight, y, *of_product),
            *(0, one, one, 1e-5, one, one, 0.1, torch.zeros(1, dtype=torch.int64), zeros[:2], zeros[:2]),
            *(grad, 0, -1.0, 1.0, [], y, torch.zeros(3, 50, dtype=torch.uint8)),
        ),
        "block_backward": (
            *(grad, 0, some_bits(3, 400), [1.0, 0.0], some_bits(3, _PIXELS * _CHANNELS), weight, y, *of_product, False),
            *(torch.stack((one, one)), 0, one, 1e-5, zeros, zeros, 0, q, 127, _KEY),
            *(torch.zeros_like(image), 4, codes, [0.25, 1.0], image, 0),
            *(of_weight, 4, False, 0),
        ),
    }
