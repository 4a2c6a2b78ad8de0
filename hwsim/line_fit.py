"""The straight line from the size of a step to the width or the voltage of a pulse that fits a wanted law best."""

from collections.abc import Callable

import torch
from torch import Tensor

# Of steps, within 0..1, that count alike.
_POINTS = 402


def fit_line(
    wanted: Callable[[Tensor], Tensor], probability: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """Least squares of the probabilities, over v in 0..1.

    Args:
        wanted: of v, the probability that is wanted: float64.
        probability: of widths or voltages, with which their pulses switch.
        inverse: of probabilities, the widths or voltages.

    Returns:
        The width or voltage at v = 0, and what v = 1 adds.
    """
    v = torch.linspace(0, 1, _POINTS, dtype=torch.float64)[1:-1]
    p = wanted(v)
    columns = torch.stack([torch.ones_like(v), v], dim=1)
    exact = inverse(p)
    line = torch.linalg.lstsq(columns, exact[:, None]).solution
    for _ in range(20):  # Gauss-Newton; it has settled after five
        now = (columns @ line)[:, 0].clamp_min(0)
        step = 1e-3 * float(exact[len(exact) // 2])
        slope = (probability(now + step) - probability((now - step).clamp_min(0))) / (2 * step)
        missing = p - probability(now)
        line = line + torch.linalg.lstsq(columns * slope[:, None], missing[:, None]).solution
    return float(line[0]), float(line[1])
