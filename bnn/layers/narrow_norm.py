"""Torch's batch norm of images between blocks, in training on the CPU by operations that bfloat16 goes through.

Torch's own takes copies of its input and gradient that lie beside the memory of results (`bnn.ops.memory`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bnn.ops import functions as _bnn
from bnn.ops.batch_norm import clamped
from bnn.ops.memory import channels_last, empty_channels_last

_NO_SLOPES = (1.0,)


def narrow_norm(norm: nn.BatchNorm2d) -> None:
    """From now on a norm of images takes its training steps in its input's dtype, float32 or bfloat16.

    Its statistics, factors and their gradients are float32, as are evaluation and what torch does otherwise.
    """
    norm.forward = partial(_forward, norm)  # type: ignore[method-assign]


def _forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    trains = norm.training and torch.is_grad_enabled() and norm.track_running_stats and norm.momentum is not None
    has_kernel = x.device.type in ("cpu", "meta") and x.dtype in (torch.float32, torch.bfloat16)
    if not trains or not has_kernel or x.dim() != 4 or x.numel() < 2 * x.shape[1]:
        return nn.BatchNorm2d.forward(norm, x)
    return _BatchNorm.apply(x, norm.weight, norm.bias, norm)  # type: ignore[no-any-return, no-untyped-call]


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, norm: nn.BatchNorm2d) -> Tensor:
        x, ctx.eps = channels_last(x), norm.eps
        running = norm.running_mean, norm.running_var, norm.momentum
        moments, (factor, offset) = _bnn.batch_statistics(x, None, gamma, beta, norm.eps, *running)
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        ctx.save_for_backward(x, gamma, moments)
        out = empty_channels_last(x.shape, x.dtype, x.device).copy_(x)
        _bnn.norm_clamp_(out, factor, offset, None, -math.inf, math.inf)
        return clamped(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, gamma, moments = ctx.saved_tensors
        no_codes = x.new_empty((0, len(x), math.ceil(x[0].numel() / 8)), dtype=torch.uint8)
        of_result = channels_last(grads[0]), no_codes, _NO_SLOPES, x
        terms, _, of_parameters = _bnn.norm_gradient_terms(*of_result, moments, None, gamma, ctx.eps)
        needs_x, *needs = ctx.needs_input_grad[:3]
        of_x = _bnn.norm_gradient(*of_result, terms, x.dtype) if needs_x else None
        return of_x, *(of if needed else None for of, needed in zip(of_parameters[1:], needs, strict=True)), None
