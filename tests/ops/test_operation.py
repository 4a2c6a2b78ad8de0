"""Every operation keeps to its schema and shape rule, and gives with a kernel what its specification gives."""

from typing import Any

import pytest
import torch

from bnn.ops import OPERATIONS, PoolWindow, Window
from tests.contracts import randn
from tests.ops.comparison import random_bits, random_integers

X, W = random_bits(2, 4 * 5 * 6, 0), random_bits(6, 2 * 3 * 2, 1)
X_SHAPE, W_SHAPE = [2, 4, 5, 6], [6, 2, 3, 2]
WINDOW = Window.of(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
POOL = PoolWindow.of((2, 3), stride=(2, 1), padding=1, dilation=(1, 2))
CHOICE_POOL = PoolWindow.of((3, 2), stride=(2, 1), padding=(1, 0))
Q, SCALE = random_integers(2, 6, 3, 8, seed=2), torch.tensor(0.1)
Y, BITS = randn(2, 5, 3, 3), random_bits(2, 45, 3)
OF_CHANNELS, CODES, SLOPES = randn(5), torch.stack([BITS, ~BITS]), [1.0, 0.5, 0.25, 0.0]
IMAGE = randn(2, 2, 5, 6)
HALVES = [randn(3, 13, seed=seed).half() for seed in range(3)]
SAMPLES: dict[str, tuple[Any, ...]] = {
    "pack": (randn(3, 13),),
    "unpack": (random_bits(3, 13, 0), 13, torch.float16),
    "sign_window": (randn(3, 13), 0.5),
    "mask": (randn(2, 45), BITS),
    "linear": (random_bits(3, 16, 0), random_bits(2, 16, 1), 16),
    "conv2d": (X, X_SHAPE, W, W_SHAPE, WINDOW),
    "real_conv2d": (IMAGE, W, W_SHAPE, WINDOW._replace(groups=1), torch.float16),
    "float_conv2d": (IMAGE, randn(6, 2, 3, 2), WINDOW._replace(groups=1), torch.float16),
    "linear_backward_input": (Q[:, :, 0, 0], SCALE, W, 12, torch.bfloat16),
    "linear_backward_weight": (Q[:, :, 0, 0], SCALE, X, 117, torch.bfloat16),
    "linear_backward_weight_sign": (Q[:, :, 0, 0], X, 117, 5),
    "conv2d_backward_input": (Q, SCALE, W, W_SHAPE, X_SHAPE, WINDOW, torch.bfloat16),
    "conv2d_backward_input_slopes": (
        *(Q, SCALE, W, W_SHAPE, X_SHAPE, WINDOW, X[None], [0.5, 2.0], IMAGE.repeat(1, 2, 1, 1), torch.float32),
    ),
    "linear_backward_input_slopes": (Q[:, :, 0, 0], SCALE, W, 12, W[None, :2], [0.5, 2.0], None, torch.bfloat16),
    "conv2d_backward_weight": (Q, SCALE, X, X_SHAPE, W_SHAPE, WINDOW),
    "conv2d_backward_weight_ternary": (Q, SCALE, X, X_SHAPE, W_SHAPE, WINDOW, 5),
    "conv2d_backward_weight_sign": (Q, X, X_SHAPE, W_SHAPE, WINDOW, 5),
    "real_conv2d_backward_weight": (Q, IMAGE, W_SHAPE, WINDOW._replace(groups=1)),
    "normed_conv2d_backward": (
        *(randn(2, 8, 5, 6), random_bits(2, 240, 4)[None], [0.5, 1.0], IMAGE, randn(8, 2, 1, 1), Window.of()),
        *(torch.ones(2, 8), None, randn(8), 1e-5, True),
    ),
    "max_pool2d": (X, X_SHAPE, POOL),
    "max_pool2d_backward": (randn(2, 4, 3, 4), X, X_SHAPE, POOL),
    "max_pool2d_choices": (Y, CHOICE_POOL),
    "max_pool2d_scatter": (randn(2, 5, 2, 2), torch.zeros(3, 2, 3, dtype=torch.uint8), [2, 5, 3, 3], CHOICE_POOL),
    "window_means": (IMAGE, [1, 3]),
    "window_means_backward": (IMAGE, [1, 3], None),
    "conv2d_max_pool2d": (BITS, [2, 5, 3, 3], BITS[:1, :3], [1, 5, 2, 2], Window.of(padding=1), CHOICE_POOL),
    "norm_sign": (Y, randn(5), 1e-5),
    "norm_sign_backward": (Y, BITS, BITS, torch.ones(5), torch.ones(4, 5)),
    "batch_statistics": (Y, OF_CHANNELS, None, OF_CHANNELS, 1e-5, randn(5), torch.ones(5), 0.1),
    "norm_clamp_": (Y.contiguous(memory_format=torch.channels_last), OF_CHANNELS, OF_CHANNELS, -Y, -1.0, 1.0),
    "sign_codes": (Y, OF_CHANNELS, None, [0.25, 0.5, 1.0]),
    "norm_gradient_terms": (Y, CODES, SLOPES, Y, torch.ones(2, 5), OF_CHANNELS, None, 1e-5),
    "norm_gradient": (Y, CODES, SLOPES, Y, randn(3, 5)),
    "norm_gradient_integers": (Y, CODES, SLOPES, Y, randn(3, 5), torch.tensor(9.0), 127, 3),
    "row_moments": (Y,),
    "row_norm_gradients": (Y, CODES, SLOPES, Y, OF_CHANNELS),
    "pass_slopes": (Y, CODES, SLOPES),
    "quantize_integers": (randn(3, 2, 4, 5).transpose(1, 2), 127, 5),
    "step_by_signs": (random_integers(3, 13, seed=0), random_bits(3, 13, 1), 1.5, 2.0, 3),
    "adam_by_rows": (
        *(random_integers(3, 13, seed=0), OF_CHANNELS[:3].abs(), randn(3, 13).bfloat16()),
        *(2.5, 0.9, 1e-8, 4.0, 2.0, 2, 3),
    ),
    "adam_by_signs": (HALVES[0], HALVES[1], HALVES[2].abs(), random_bits(3, 13, 1), 0.1, [0.9, 0.99], 0.0, 0.1, 2, 3),
    "adam_by_values": (HALVES[0], HALVES[1], HALVES[2].abs(), randn(3, 13), 0.1, [0.9, 0.99], 0.0, 0.1, 2, 3),
}


def test_every_operation_has_a_sample() -> None:
    assert SAMPLES.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # native, and by the specification
@pytest.mark.parametrize("name", OPERATIONS)
def test_schema_and_shape_rule_hold(name: str, dtype: torch.dtype) -> None:
    first, *rest = SAMPLES[name]
    first = first.to(dtype) if first.dtype is torch.float32 else first
    torch.library.opcheck(
        getattr(torch.ops.bnn, name).default, (first, *rest), test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_kernel_and_specification_agree_on_dtypes_and_layouts(name: str) -> None:
    results = []
    for run in (getattr(torch.ops.bnn, name), OPERATIONS[name]):
        arguments = [x.clone() if isinstance(x, torch.Tensor) else x for x in SAMPLES[name]]
        result = run(*arguments)
        tensors = [result] if isinstance(result, torch.Tensor) else list(result or ())  # none where it changes them
        results.append([(x.dtype, x.shape, x.stride()) for x in tensors])
    assert results[0] == results[1]


def test_operations_run_on_shapes_alone() -> None:
    out = torch.ops.bnn.conv2d(X.to("meta"), X_SHAPE, W.to("meta"), W_SHAPE, WINDOW, torch.float16)
    assert (out.device.type, out.dtype, out.shape) == ("meta", torch.float16, (2, 6, 3, 8))
