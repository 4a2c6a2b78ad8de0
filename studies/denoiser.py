"""The shallow denoiser of least norm is constant on each cluster of noisy samples and linear between.

Prediction: in one dimension, the interpolating network of one hidden ReLU layer with the least weights maps every
noisy copy of a point to the point, and draws straight lines between the clusters; the norm that this takes is twice
the sum of the slopes between. Source: Zeno, Ongie, Blumenfeld, Weinberger and Soudry 2023, arXiv 2311.06748.
"""

from itertools import pairwise

import torch
from torch import Tensor

from studies.study import Curve, Finding, Measured

POINTS = (-1.0, 0.2, 1.0)
NOISE, COPIES, UNITS, STEPS, DECAY = 0.15, 15, 128, 6_000, 2e-5


def measure(*, seed: int = 0) -> Measured:
    """A trained network beside the function that theory gives."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.tensor(POINTS).repeat_interleave(COPIES)
    offsets = torch.rand(len(POINTS), COPIES, generator=generator) * 2 - 1
    offsets[:, 0], offsets[:, 1] = -1, 1  # so that the ends of each cluster are known
    noisy = clean + NOISE * offsets.flatten()
    first, bias, last, last_bias = train(noisy, clean, generator)
    grid = torch.linspace(POINTS[0] - NOISE, POINTS[-1] + NOISE, 301)
    learned = torch.relu(grid[:, None] * first + bias) @ last + last_bias
    predicted = denoised(grid)
    slopes = [(b - a) / (b - a - 2 * NOISE) for a, b in pairwise(POINTS)]
    norm = float((first * last).abs().sum())
    return Measured(
        title="The least denoiser: constant on clusters, linear between",
        x_label="noisy input",
        y_label="output",
        findings=[
            Finding("mean distance from the predicted function", float((learned - predicted).abs().mean()), high=0.02),
            Finding("norm over twice the sum of slopes", norm / (2 * sum(slopes)), 0.8, 1.1),
        ],
        curves=[
            Curve("trained network", grid.tolist(), learned.tolist()),
            Curve("theory", grid.tolist(), predicted.tolist(), dashed=True),
            Curve("no denoising", grid.tolist(), grid.tolist(), dashed=True),
        ],
    )


def denoised(y: Tensor) -> Tensor:
    """Theory's function."""
    ends = torch.tensor([end for point in POINTS for end in (point - NOISE, point + NOISE)])
    values = torch.tensor(POINTS).repeat_interleave(2)
    right = torch.searchsorted(ends, y).clamp(1, len(ends) - 1)
    part = ((y - ends[right - 1]) / (ends[right] - ends[right - 1])).clamp(0, 1)
    return values[right - 1] + part * (values[right] - values[right - 1])


def train(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and biases of both layers, after full-batch Adam with a penalty on the squares of the weights alone."""
    first = torch.randn(UNITS, generator=generator)
    bias = torch.randn(UNITS, generator=generator)
    last = torch.randn(UNITS, generator=generator) / UNITS
    parameters = [p.requires_grad_() for p in (first, bias, last, torch.zeros(()))]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        outputs = torch.relu(x[:, None] * first + bias) @ last + parameters[3]
        penalty = DECAY * (first.square().sum() + last.square().sum())
        ((outputs - y).square().mean() + penalty).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    first, bias, last, last_bias = (p.detach() for p in parameters)
    return first, bias, last, last_bias
