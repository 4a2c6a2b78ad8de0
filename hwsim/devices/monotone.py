"""Noisy probabilities that are to rise along two axes: smoothed where the noise allows it."""

import torch
from torch import Tensor

_CONTRADICTION = 5.0  # standard errors
_MAX_ROUNDS = 2000
_ACCURACY = 1e-9


def monotone(values: Tensor, weights: Tensor) -> Tensor:
    """The values nearest to given ones, by weighted squares, that do not fall along either axis.

    With the numbers of trials as weights this is the maximum likelihood of binomial probabilities in that order.
    Dykstra's alternating projections. Sources: R. L. Dykstra and T. Robertson, Ann. Statist. 10, 708 (1982); the fit
    along one axis is the maximum over starts of the minimum over ends of means.

    Args:
        values: float64 [v, t].
        weights: above 0, the same shape.
    """
    fitted = values
    along_v, along_t = torch.zeros_like(values), torch.zeros_like(values)
    for _ in range(_MAX_ROUNDS):
        before = fitted
        rows = _isotonic(fitted + along_t, weights)
        along_t = fitted + along_t - rows
        fitted = _isotonic((rows + along_v).T, weights.T).T
        along_v = rows + along_v - fitted
        if float((fitted - rows).abs().max()) < _ACCURACY and float((fitted - before).abs().max()) < _ACCURACY:
            break
    # What rounding has left.
    return fitted.cummax(dim=0).values.cummax(dim=1).values


def contradiction(probability: Tensor, trials: Tensor) -> tuple[int, int] | None:
    """Two measurements that cannot be of probabilities in order, the worst pair of them.

    The second is of a pulse that is nowhere weaker, and its probability is lower by more than five standard errors of
    a difference of two equal ones.

    Args:
        probability: float64 [v, t].
        trials: the same shape.

    Returns:
        Their positions in the flattened grid, or None where noise explains everything.
    """
    v, t = (index.flatten() for index in torch.meshgrid(*map(torch.arange, probability.shape), indexing="ij"))
    p, n = probability.flatten(), trials.flatten()
    weaker = (v[:, None] <= v) & (t[:, None] <= t)
    pooled = (p[:, None] * n[:, None] + p * n) / (n[:, None] + n)
    error = (pooled * (1 - pooled) * (1 / n[:, None] + 1 / n)).sqrt()
    excess = torch.where(weaker & (error > 0), (p[:, None] - p) / error, 0.0)
    worst = int(excess.argmax())
    return divmod(worst, len(p)) if float(excess.flatten()[worst]) > _CONTRADICTION else None


def _isotonic(values: Tensor, weights: Tensor) -> Tensor:
    """The nearest rows that do not fall: [r, n]."""
    n = values.shape[1]
    sums, totals = (torch.nn.functional.pad(terms.cumsum(dim=1), (1, 0)) for terms in (values * weights, weights))
    order = torch.arange(n)
    later = order[:, None] <= order
    # Of the entries from i to j.
    means = (sums[:, None, 1:] - sums[:, :-1, None]) / (totals[:, None, 1:] - totals[:, :-1, None])
    lowest = torch.where(later, means, torch.inf).flip(2).cummin(dim=2).values.flip(2)
    return torch.where(later, lowest, -torch.inf).amax(dim=1)
