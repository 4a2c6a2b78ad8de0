"""`Count` and `Vote`: ranks take whole slices of a batch, and tell each other the signs of their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.distributed.exchange import Exchange, Mode, Part, cut
from bnn.distributed.sums import in_order, majority
from bnn.errors import DistributedError
from bnn.ops import functions

_MOST_IN_INT8 = 127


class Count(Exchange):
    """The gradients of the slices add up, as in one process that takes these slices one after the other.

    Of an accumulator whose gradient is signs these are votes, and their sum is whole; it is 0 where the ranks are
    divided, and such a weight stays where it is. All other gradients are summed in the order of the slices, of which a
    rank keeps those of its own until then. A batch norm sees a slice at a time, and running statistics become the mean
    of what each slice makes of them.
    """

    mode: Mode = "count"
    averages_buffers = True
    adds_up_parameters = True
    _votes_dtype = torch.int8

    def parts(self, batch_size: int, slices: int) -> list[Part]:
        """Whole slices, equally many of each rank: at least `slices` in all."""
        self.check_divides(batch_size)
        each = -(-slices // self.ranks.size)
        if each * self.ranks.size > batch_size:
            raise DistributedError(
                f"a batch of {batch_size} cannot be cut into {each * self.ranks.size} slices: take fewer ranks or"
                " larger slices"
            )
        # Those of all slices of a batch add up, unless each of a rank's is stepped by.
        self._votes_dtype = torch.int8 if each * self.ranks.size <= _MOST_IN_INT8 else torch.int16
        first = each * self.ranks.rank
        own = cut(range(batch_size), each * self.ranks.size)[first : first + each]
        return [Part(first + i, rows, len(rows)) for i, rows in enumerate(own)]

    def of_accumulator(self, gradient: Tensor) -> Tensor:
        """The sum of the ranks' gradients: of signs int8, or int16 where a batch has more slices than that counts."""
        self.ranks.agree()
        if isinstance(gradient, BitTensor):
            return self.of_signs(gradient)
        return torch.empty_like(gradient).copy_(in_order(self.ranks, [[gradient]])[0])

    def of_signs(self, signs: BitTensor) -> Tensor:
        """What the ranks' signs come to."""
        of_all, columns = self.ranks.gather(signs.packed), _columns(signs)
        votes = functions.unpack(of_all[0], columns, torch.int8).to(self._votes_dtype)
        for packed in of_all[1:]:
            votes += functions.unpack(packed, columns, torch.int8)
        flat: Tensor = votes.view(-1)
        return flat.as_strided(signs.shape, signs.stride())

    def of_parameters(self, of_parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Their sums, in the order of the slices."""
        return in_order(self.ranks, of_parts)

    def of_buffers(self, before: Sequence[Tensor], made: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Their means over all slices, formed in float64; whole numbers as the last slice of this rank leaves them."""
        results = list(made[-1])
        changes = [any(not torch.equal(old, part[i]) for part in made) for i, old in enumerate(before)]
        of_all = self.ranks.gather(torch.tensor(changes, device=self.ranks.device)).any(0).tolist()
        for i, last in enumerate(results):
            if of_all[i] and last.is_floating_point():
                slices = self.ranks.gather(torch.stack([part[i] for part in made])).flatten(0, 1)
                mean = slices[0].double()
                for of_slice in slices[1:]:
                    mean = mean + of_slice
                results[i] = mean / len(slices)
        return results

    def loss_of(self, losses: Sequence[Tensor], examples: int) -> float:
        """Summed in the order of the slices."""
        return float(sum(self.ranks.gather(torch.cat(list(losses))).flatten().tolist()))


class Vote(Count):
    """As `Count`, but of an accumulator's gradient ranks learn what most of them voted for: one bit each way.

    Where they are divided, as two ranks often are, a coin decides that all of them share. Source: signSGD with majority
    vote, Bernstein et al. 2018, arXiv 1810.05291.
    """

    mode: Mode = "vote"

    def of_signs(self, signs: BitTensor) -> Tensor:
        """The signs that most ranks have."""
        packed = majority(self.ranks, signs.packed, seed=self.next_seed())
        return BitTensor(packed, signs.shape, signs.stride(), signs.dtype)


def _columns(signs: BitTensor) -> int:
    """Elements of a packed row."""
    return signs.shape.numel() // max(1, len(signs.packed))
