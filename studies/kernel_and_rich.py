"""A small initialization favours sparse solutions, a large one those of least squares.

Prediction: gradient descent on u, v of the linear model x (u² - v²), begun at u = v = alpha, interpolates with the
beta that minimizes alpha² sum q(beta / alpha²), q(z) = 2 - sqrt(4 + z²) + z arcsinh(z / 2): the least L1 norm for
small alpha ("rich"), the least L2 norm for large ("kernel"). Source: Woodworth et al. 2020, arXiv 2002.09277.
"""

import torch
from scipy.optimize import linprog
from torch import Tensor

from studies.study import Curve, Finding, Measured

EXAMPLES, DIMENSIONS, NON_ZERO = 12, 30, 3
ALPHAS = (0.03, 0.1, 0.3, 1.0, 3.0)
STEPS = 30_000


def measure(*, seed: int = 0) -> Measured:
    """Gradient descent from five initializations beside the minimizers that theory gives."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, DIMENSIONS, generator=generator, dtype=torch.float64)
    truth = torch.zeros(DIMENSIONS, dtype=torch.float64)
    truth[:NON_ZERO] = 1
    y = x @ truth
    learned = descend(x, y, torch.tensor(ALPHAS, dtype=torch.float64))
    predicted = torch.stack([minimizer(x, y, alpha) for alpha in ALPHAS])
    least_l1 = least_absolute_sum(x, y)
    least_l2 = float((torch.linalg.pinv(x) @ y).norm())
    l1 = learned.abs().sum(1) / least_l1 - 1
    l2 = learned.norm(dim=1) / least_l2 - 1
    distance = (learned - predicted).norm(dim=1) / predicted.norm(dim=1)
    return Measured(
        title="Kernel and rich regimes of u² - v²",
        x_label="initialization alpha",
        y_label="excess over the least norm",
        log="x",
        findings=[
            Finding(
                "largest relative distance of what is learned from the minimizer", float(distance.max()), high=0.02
            ),
            Finding("excess of the L1 norm at the smallest alpha", float(l1[0]), high=0.15),
            Finding("excess of the L2 norm at the largest alpha", float(l2[-1]), high=0.01),
        ],
        curves=[
            Curve("L1 norm", ALPHAS, l1.tolist()),
            Curve("L2 norm", ALPHAS, l2.tolist()),
            Curve("L1, theory", ALPHAS, (predicted.abs().sum(1) / least_l1 - 1).tolist(), dashed=True),
            Curve("L2, theory", ALPHAS, (predicted.norm(dim=1) / least_l2 - 1).tolist(), dashed=True),
        ],
    )


def descend(x: Tensor, y: Tensor, alphas: Tensor) -> Tensor:
    """beta [alphas, n] after gradient descent on |x beta - y|² / 2 from each initialization."""
    u = alphas[:, None].expand(-1, x.shape[1]).clone()
    v = u.clone()
    # The curvature grows with the square of the weights, which end near max(alpha, 1).
    rate = 0.05 / (float(torch.linalg.matrix_norm(x, 2)) ** 2 * alphas.clamp(min=1)[:, None] ** 2)
    for _ in range(STEPS):
        step = rate * 2 * (((u * u - v * v) @ x.T - y) @ x)
        u, v = u - step * u, v + step * v
    return u * u - v * v


def minimizer(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """The interpolating beta = 2 alpha² sinh(x' nu): Newton's method on the convex dual in nu, damped."""
    nu = torch.zeros(len(x), dtype=torch.float64)

    def dual(nu: Tensor) -> float:
        return float(2 * alpha**2 * torch.cosh(nu @ x).sum() - nu @ y)

    for _ in range(500):
        gradient = x @ (2 * alpha**2 * torch.sinh(nu @ x)) - y
        if float(gradient.norm()) < 1e-10:
            break
        hessian = (x * (2 * alpha**2 * torch.cosh(nu @ x))) @ x.T
        direction = torch.linalg.solve(hessian, gradient)
        size, value = 1.0, dual(nu)
        while not dual(nu - size * direction) <= value - 1e-4 * size * float(gradient @ direction) and size > 1e-12:
            size /= 2
        nu = nu - size * direction
    return 2 * alpha**2 * torch.sinh(nu @ x)


def least_absolute_sum(x: Tensor, y: Tensor) -> float:
    """The least L1 norm of an interpolating beta, by linear programming."""
    both = torch.cat((x, -x), dim=1).numpy()
    return float(linprog([1.0] * both.shape[1], A_eq=both, b_eq=y.numpy(), bounds=(0, None)).fun)
