"""`Exact`: ranks take some rows of every slice, and form each sum over a slice together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from bnn.distributed.exchange import Exchange, Mode, Part, cut
from bnn.distributed.sums import of_examples
from bnn.errors import DistributedError, NonFiniteError
from bnn.ops.memory import empty


def shares_slices(exchange: Exchange | None) -> TypeGuard[Exact]:
    """Whether ranks have some rows of each slice each, by what the exchange says of itself."""
    return exchange is not None and exchange.shares_slices


class Exact(Exchange):
    """Every sum over a slice is formed over the rows of all ranks, so that their number changes no bit.

    The statistics of norms, the scale of integer gradients and the integer sums of weight gradients are those of the
    slice; random numbers are keyed by the row of the joint batch; sums of real numbers go in the order of the rows, or
    are exact in units that all ranks share. Of a binary weight's gradient a rank forms some outputs, for the rows of
    all. Gradients that blocks form (`bnn.layers.joint`) are therefore those of all ranks already.

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
        sizes = self._sizes()
        of_ranks = self.ranks.gather(_with_rows(x, sizes[0]))
        if sizes[0] == sizes[-1]:
            return of_ranks.flatten(0, 1)
        return torch.cat([of_rank[:size] for of_rank, size in zip(of_ranks, sizes, strict=True)])

    def channel_sums(self, sums: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sums over the slice, in the order of its rows, of what is of each of them; and what magnitudes all have.

        Args:
            sums: of this rank's rows, float64 [rows, k, C].
            sizes: other values of these rows, float32 [rows, j, C]; or None.

        Returns:
            float64 [k, C]; float32 [examples, j, C].

        Raises:
            NonFiniteError: a sum is not finite, on all ranks alike.
        """
        k = sums.shape[1]
        of_rows = self.rows_of_all(sums if sizes is None else torch.cat((sums, sizes.double()), dim=1))
        totals = of_rows[:, :k].sum(0)
        if not totals.isfinite().all():
            raise NonFiniteError("sums over a slice are not finite: lower the learning rate")
        return totals, of_rows[:, k:].float()

    def outputs_of_all(self, q: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
        """What a rank makes its share of a weight's gradient of, from the rows of all ranks.

        Args:
            q: of this rank's rows, int8 [rows, O, ...].
            packed: the input's bits, uint8 [rows, bytes].

        Returns:
            int8 [rows of all, ceil(O / ranks), ...], its memory in (rows, ..., outputs) order, and uint8 [rows of all,
            bytes]; zeros behind the last output, and rows of zeros behind those of a rank that has one less.
        """
        size, most = self.ranks.size, self._sizes()[0]
        last = _with_rows(q.movedim(1, -1), most)
        each = -(-last.shape[-1] // size)
        shares = empty((size, *last.shape[:-1], each), q.dtype, q.device)
        if last.shape[-1] < size * each:
            shares.zero_()
        for share, outputs in zip(shares, torch.split(last, each, dim=-1), strict=False):
            share[..., : outputs.shape[-1]] = outputs
        own, bits = self.ranks.swap_and_gather(shares, _with_rows(packed, most))
        return own.flatten(0, 1).movedim(-1, 1), bits.flatten(0, 1)

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


def _with_rows(x: Tensor, count: int) -> Tensor:
    """`x` [rows, ...] with rows of zeros behind its own, so many in all."""
    return x if len(x) == count else torch.cat((x, x.new_zeros((count - len(x), *x.shape[1:]))))
