"""`Exact`: ranks take some rows of every slice, and form each sum over a slice together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from bnn.distributed.exchange import Exchange, Mode, Part, cut
from bnn.distributed.sums import of_examples, signs_of_sums
from bnn.errors import DistributedError

_LARGEST_FACTOR = 127  # of the integers that gradients are rounded to


def shares_slices(exchange: Exchange | None) -> TypeGuard[Exact]:
    """Whether ranks have some rows of each slice each, by what the exchange says of itself."""
    return exchange is not None and exchange.shares_slices


class Exact(Exchange):
    """Every sum over a slice is formed over the rows of all ranks, so that their number changes no bit.

    The statistics of norms, the scale of integer gradients and the integer sums of weight gradients are those of the
    slice; random numbers are keyed by the row of the joint batch; sums of real numbers are exact in units that all
    ranks share. Gradients that blocks form (`bnn.layers.joint`) are therefore those of all ranks already.

    Attributes:
        part: what goes through the network now.
    """

    mode: Mode = "exact"
    shares_slices = True
    part = Part(0, range(0), 0)

    @property
    def identity(self) -> dict[str, str | int]:
        """The mode: any number of ranks goes on."""
        return {"exchange": self.mode}

    def begin_part(self, part: Part) -> None:
        """Goes on to some rows of a slice."""
        self.part = part

    def parts(self, batch_size: int, slices: int) -> list[Part]:
        """Of each slice some rows."""
        self.check_divides(batch_size)
        size, rank = self.ranks.size, self.ranks.rank
        if slices * size > batch_size:
            raise DistributedError(
                f"{size} ranks cannot share each of the {slices} slices of a batch of {batch_size}: take fewer ranks or"
                " a larger slice"
            )
        joint = cut(range(batch_size), slices)
        return [Part(number, cut(rows, size)[rank], len(rows)) for number, rows in enumerate(joint)]

    def loss_of(self, losses: Sequence[Tensor], examples: int) -> float:
        """The same bits for any number of ranks."""
        return float(of_examples(self.ranks, torch.cat(list(losses)), examples=examples))

    def sum_of(self, x: Tensor) -> Tensor:
        """The sum of values of this rank's examples, [rows, ...], over the slice: float64 [...]."""
        return of_examples(self.ranks, x, examples=self.part.examples)

    def rows_of_all(self, x: Tensor) -> Tensor:
        """The slice's rows, [examples, ...], of which this rank has `x`."""
        self.ranks.agree()
        sizes = self._sizes()
        own = x.new_zeros((sizes[0], *x.shape[1:]))  # ranks have equally many, or one less
        own[: len(x)] = x
        return torch.cat([of_rank[:size] for of_rank, size in zip(self.ranks.gather(own), sizes, strict=True)])

    def own_rows(self, x: Tensor) -> Tensor:
        """This rank's rows of a slice's: a copy."""
        return torch.split(x, self._sizes())[self.ranks.rank].clone()

    def _sizes(self) -> list[int]:
        return [len(rows) for rows in cut(range(self.part.examples), self.ranks.size)]

    def largest(self, x: Tensor) -> Tensor:
        """The largest magnitude on all ranks of a float tensor: float32 []."""
        low, high = x.aminmax()
        largest = self.ranks.agree(float(torch.maximum(-low, high)))
        return torch.tensor(largest, dtype=torch.float32, device=x.device)

    def whole_sums(self, q: Tensor, x: Tensor) -> Tensor:
        """q [rows, O] transposed times x [rows, K] over the slice: float64 [O, K], the same for any number of ranks.

        Args:
            q: int8.
            x: real numbers, which are rounded to units so small that products with `q` add up exactly.
        """
        bound = float(self.largest(x))
        unit = 2.0 ** (torch.tensor(bound).frexp().exponent.item() - 44 + self.part.examples.bit_length())
        return self.ranks.sum_(q.t().double() @ (x.double() / unit).round_()) * unit

    def sums_of(self, sums: Tensor) -> Tensor:
        """Integer weight gradients, float of whole numbers that int32 holds, summed over the ranks: int32."""
        self.ranks.agree()
        return self.ranks.sum_(sums.int())

    def signs_of(self, sums: Tensor, *, terms: int, seed: int) -> Tensor:
        """The packed signs of integer weight gradients, summed over the ranks.

        Args:
            sums: of this rank, float [rows, n] of whole numbers.
            terms: that an element adds up for each example.
            seed: of the signs of zeros.
        """
        self.ranks.agree()
        largest = _LARGEST_FACTOR * terms * self.part.examples
        return signs_of_sums(self.ranks, sums, largest=largest, seed=seed)
