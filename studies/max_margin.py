"""Gradient descent on separable data goes to the largest margin, as slowly as 1 / log t.

Prediction: w(t) = w_svm log t + a rest that stays bounded, for the logistic loss of a linear classifier; so the loss
falls as 1 / t, the norm grows by |w_svm| for each factor e of steps, and the angle to w_svm closes long after the last
training error is gone. Source: Soudry, Hoffer, Nacson, Gunasekar and Srebro 2018, arXiv 1710.10345.
"""

import math

import torch
from scipy.optimize import nnls
from torch import Tensor

from studies.study import Curve, Finding, Measured

EXAMPLES, DIMENSIONS, STEPS = 40, 5, 100_000


def measure(*, seed: int = 0) -> Measured:
    """Gradient descent beside the support vector machine of the same 40 points in 5 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(DIMENSIONS, generator=generator, dtype=torch.float64)
    points = torch.randn(20 * EXAMPLES, DIMENSIONS, generator=generator, dtype=torch.float64)
    distances = points @ truth / truth.norm()
    # Those that leave a margin, so that log t need not be astronomic.
    signed = (points * distances.sign()[:, None])[distances.abs() > 0.5][:EXAMPLES]
    largest_margin = support_vector_machine(signed)
    rate = EXAMPLES / float(torch.linalg.matrix_norm(signed, 2)) ** 2
    weight = torch.zeros(DIMENSIONS, dtype=torch.float64)
    marks = sorted({round(10 ** (k / 8)) for k in range(8, 8 * round(math.log10(STEPS)) + 1)})
    angles, norms, rests, losses = [], [], [], []
    for step in range(1, STEPS + 1):
        weight = weight + rate / EXAMPLES * (signed.T @ torch.sigmoid(-(signed @ weight)))
        if step in marks:
            angles.append(1 - float(torch.cosine_similarity(weight, largest_margin, dim=0)))
            norms.append(float(weight.norm()))
            rests.append(float((weight - largest_margin * math.log(step)).norm()))
            losses.append(float(torch.nn.functional.softplus(-(signed @ weight)).mean()))
    decade = marks.index(STEPS // 10)
    rest = (rests[-1] - rests[decade]) / math.log(10)
    growth = (norms[-1] - norms[decade]) / math.log(10)
    return Measured(
        title="Gradient descent finds the largest margin",
        x_label="steps t",
        y_label="1 - cosine to the support vector machine",
        log="xy",
        findings=[
            Finding(
                "over |w_svm|, the norm grows per factor e of steps", growth / float(largest_margin.norm()), 0.85, 1.15
            ),
            Finding("t times the loss, last decade over the one before", losses[-1] * 10 / losses[decade], 0.7, 1.3),
            Finding("over |w_svm|, the rest grows per factor e", rest / float(largest_margin.norm()), high=0.25),
        ],
        curves=[
            Curve("gradient descent", marks, angles),
            Curve("1 / log² t", marks, [angles[-1] * (math.log(STEPS) / math.log(t)) ** 2 for t in marks], dashed=True),
        ],
    )


def support_vector_machine(signed: Tensor) -> Tensor:
    """argmin |w| with signed @ w >= 1, by non-negative least squares (Lawson and Hanson 1974, chapter 23).

    Args:
        signed: [examples, n] float64: each example times its label, ±1.
    """
    target = torch.zeros(signed.shape[1] + 1, dtype=torch.float64)
    target[-1] = 1
    rows = torch.cat((signed.T, torch.ones(1, len(signed), dtype=torch.float64)))
    solution, _ = nnls(rows.numpy(), target.numpy())
    rest = rows @ torch.from_numpy(solution) - target
    return -rest[:-1] / rest[-1]
