"""FOO-VB: a posterior of each weight matrix whose rows and columns are correlated."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from bnn.optim.base import require


class FOOVB(torch.optim.Optimizer):
    """Matrices W = M + B Phi A', Phi normal: a matrix normal posterior, updated in closed form without task boundaries.

        M = M - B B' E[G] A A';  A solves A A' + V E Ã' = V with V = Ã Ã' of before, E = E[G' B Phi] / out; B likewise

    with the gradients G of the loss at `samples` draws. `BGD` is what remains where A and B are diagonal. It takes
    2 (in² + out²) floats a matrix and `samples` passes a step: it shows what a better posterior gives, and is no method
    for a small device. A parameter that is no matrix counts as one of one column. Source: Zeno, Golan, Hoffer and
    Soudry 2021, arXiv 2010.00373.

    Args:
        params: parameters; a tensor [out, ...] is a matrix of out rows.
        deviation: of a weight at the start, above 0.
        eta: rate of the means, above 0; 1 in the paper.
        samples: draws a step, at least 1.
        generator: of the draws, or None for torch's own.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        deviation: float = 0.04,
        eta: float = 1.0,
        samples: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        require(0 < deviation < math.inf, "deviation is above 0", deviation)
        require(0 < eta < math.inf, "eta is above 0", eta)
        require(samples >= 1, "samples is at least 1", samples)
        super().__init__(params, {"eta": eta})
        self.samples = samples
        self.generator = generator
        for parameter in self._parameters():
            rows, columns = _matrix(parameter).shape
            for name, size in (("A", columns), ("B", rows)):
                self.state[parameter][name] = math.sqrt(deviation) * torch.eye(size, dtype=torch.float64)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One update; the arguments and the result are those of `BGD.step`: the loss is a sum over examples."""
        parameters = self._parameters()
        means = [_matrix(parameter).double() for parameter in parameters]
        gradients = [torch.zeros_like(mean) for mean in means]
        of_columns = [torch.zeros_like(self.state[parameter]["A"]) for parameter in parameters]
        of_rows = [torch.zeros_like(self.state[parameter]["B"]) for parameter in parameters]
        total = torch.zeros(())
        for _ in range(self.samples):
            draws = []
            for parameter, mean in zip(parameters, means, strict=True):
                a, b = self.state[parameter]["A"], self.state[parameter]["B"]
                draw = torch.empty_like(mean).normal_(generator=self.generator)
                parameter.copy_((mean + b @ draw @ a.T).view_as(parameter))
                draws.append(draw)
            with torch.enable_grad():
                total += closure().detach()
            for i, (parameter, draw) in enumerate(zip(parameters, draws, strict=True)):
                if parameter.grad is None:
                    continue
                a, b = self.state[parameter]["A"], self.state[parameter]["B"]
                gradient = _matrix(parameter.grad).double() / self.samples
                gradients[i] += gradient
                of_columns[i] += gradient.T @ b @ draw / len(gradient)
                of_rows[i] += gradient @ a @ draw.T / gradient.shape[1]
        eta = self.param_groups[0]["eta"]
        for i, parameter in enumerate(parameters):
            a, b = self.state[parameter]["A"], self.state[parameter]["B"]
            parameter.copy_((means[i] - eta * b @ (b.T @ gradients[i] @ a) @ a.T).view_as(parameter))
            a.copy_(updated_factor(a, of_columns[i]))
            b.copy_(updated_factor(b, of_rows[i]))
        return total / self.samples

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def updated_factor(factor: Tensor, expectation: Tensor) -> Tensor:
    """X with X X' + V E X' = V, where V = factor factor'.

    X = S^(1/2) Q - V E / 2 with S = V + V E E' V / 4 and the orthogonal polar factor Q of S^(-1/2) V E.

    Args:
        factor: [n, n] float64, of full rank.
        expectation: E, [n, n] float64.
    """
    covariance = factor @ factor.T
    product = covariance @ expectation
    values, vectors = torch.linalg.eigh(covariance + product @ product.T / 4)
    root = vectors * values.clamp(min=1e-30).sqrt()
    # The polar factor of S^(-1/2) V E, from its singular vectors.
    left, _, right = torch.linalg.svd((root / values.clamp(min=1e-30)) @ vectors.T @ product)
    updated: Tensor = root @ vectors.T @ left @ right - product / 2
    return updated


def _matrix(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1) if x.dim() else x.reshape(1, 1)
