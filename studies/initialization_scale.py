"""How small the loss must become before an initialization is forgotten: exponentially, in its square.

Prediction: a classifier x (u² - v²), begun at u = v = alpha and trained on separable data, leaves the kernel regime
when log(1 / loss) is of the order of alpha². So the larger the initialization, the further below any accuracy that one
trains to lies the sparse solution of the limit. Source: Moroshko et al. 2020, arXiv 2007.06738.
"""

import torch
from scipy.optimize import linprog
from torch import Tensor

from studies.study import Curve, Finding, Measured

EXAMPLES, DIMENSIONS = 12, 30
ALPHAS = (4.0, 8.0, 16.0, 32.0)
# In units of alpha², to which log(1 / loss) is followed; and the part of the largest L1 margin that is waited for.
UNITS, LEVEL = 60.0, 0.8


def measure(*, seed: int = 0) -> Measured:
    """The L1 margin over log(1 / loss) in units of alpha², from four initializations."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(DIMENSIONS, dtype=torch.float64)
    truth[:2] = 1
    x = torch.randn(EXAMPLES, DIMENSIONS, generator=generator, dtype=torch.float64)
    signed = x * (x @ truth).sign()[:, None]
    best = largest_l1_margin(signed)
    curves, crossings = [], []
    for alpha in ALPHAS:
        losses, margins = follow(signed, alpha)
        relative = [margin / best for margin in margins]
        crossing = next(loss for loss, margin in zip(losses, relative, strict=True) if margin >= LEVEL)
        crossings.append(crossing / alpha**2)
        curves.append(Curve(f"alpha = {alpha:g}", [loss / alpha**2 for loss in losses], relative))
    return Measured(
        title="An initialization is forgotten at log(1 / loss) ~ alpha²",
        x_label="log(1 / loss) / alpha²",
        y_label="L1 margin over the largest",
        log="x",
        findings=[
            Finding(
                f"log(1 / loss) / alpha² at {LEVEL:g} of the margin, largest over smallest alpha",
                crossings[-1] / crossings[0],
                0.8,
                1.25,
            ),
            Finding("the least of these", min(crossings), low=1.0),
        ],
        curves=curves,
    )


def follow(signed: Tensor, alpha: float) -> tuple[list[float], list[float]]:
    """log(1 / loss), of the exponential loss, and the margin over the L1 norm, along gradient descent.

    Steps are divided by the loss, which keeps the path and makes it short.
    """
    u = torch.full((signed.shape[1],), alpha, dtype=torch.float64)
    v = u.clone()
    losses: list[float] = []
    margins: list[float] = []
    rate = 0.01 / float(signed.abs().max())
    while not losses or losses[-1] < UNITS * alpha**2:
        outputs = signed @ (u * u - v * v)
        losses.append(-float(torch.logsumexp(-outputs, 0)) + float(torch.tensor(float(len(signed))).log()))
        margins.append(float(outputs.min() / (u * u - v * v).abs().sum().clamp(min=1e-300)))
        push = rate * torch.softmax(-outputs, 0) @ signed
        u, v = u * (1 + push), v * (1 - push)
    # The first step is from beta = 0, whose margin is not defined.
    return losses[1:], margins[1:]


def largest_l1_margin(signed: Tensor) -> float:
    """max over |beta|_1 <= 1 of the least of signed @ beta, by linear programming."""
    examples, n = signed.shape
    both = torch.cat((-signed, signed, torch.ones(examples, 1, dtype=torch.float64)), dim=1).numpy()
    cost = [0.0] * (2 * n) + [-1.0]
    total = [[1.0] * (2 * n) + [0.0]]
    limits = [(0, None)] * (2 * n) + [(None, None)]
    return -float(linprog(cost, A_ub=both, b_ub=[0.0] * examples, A_eq=total, b_eq=[1.0], bounds=limits).fun)
