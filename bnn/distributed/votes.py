"""`Count` and `Vote`: ranks take whole slices of a batch, and tell each other the signs of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.distributed.exchange import Exchange, Mode, Part, cut
from bnn.distributed.ranks import Ranks
from bnn.distributed.sums import in_order, majority, sum_of_ranks
from bnn.errors import DistributedError
from bnn.ops import functions

_MOST_IN_INT8 = 127
_PART_BEYOND = 5  # of a slice, by which those of ranks may be larger
_CHUNK_ELEMENTS = 1 << 18


class Count(Exchange):
    """The gradients of the slices add up, as in one process that takes these slices one after the other.

    Of an accumulator whose gradient is signs these are votes, and their sum is whole; it is 0 where the ranks are
    divided, and such a weight stays where it is. All other gradients are summed in the order of the slices, of which a
    rank keeps those of its own until then. Signs are kept until a slice has gone through backward, and then sent all
    together. A batch norm sees a slice at a time, and running statistics become the mean of what each slice makes of
    them.
    """

    mode: Mode = "count"
    averages_buffers = True
    adds_up_parameters = True
    _votes_dtype = torch.int8

    def __init__(self, ranks: Ranks | None = None) -> None:
        super().__init__(ranks)
        self._kept: list[tuple[BitTensor, Callable[[Tensor], None]]] = []

    def begin_part(self, part: Part) -> None:
        """Forgets the signs of a part that was left."""
        self._kept.clear()

    def slices(self, batch_size: int, most: int) -> int:
        """As few of each rank as slices a fifth larger than `most` allow: one more costs each a step of all weights."""
        size = self.ranks.size
        if size > 1:
            most += most // _PART_BEYOND
        return size * -(-batch_size // (size * most))

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

    def of_accumulator(self, gradient: Tensor, take: Callable[[Tensor], None]) -> None:
        """Hands on the sum of the ranks' gradients, of signs when the part ends."""
        if isinstance(gradient, BitTensor):
            self._kept.append((gradient, take))
            return
        self.ranks.agree()
        take(sum_of_ranks(self.ranks, gradient))

    def end_part(self) -> None:
        """Hands on what has become of the signs, in the order in which they came."""
        kept, self._kept = self._kept, []
        self.ranks.agree()
        if kept:
            signs = [gradient for gradient, _ in kept]
            for (_, take), gradient in zip(kept, self.of_signs(signs), strict=True):
                take(gradient)

    def of_signs(self, signs: Sequence[BitTensor]) -> Iterator[Tensor]:
        """Sums of the ranks' votes: int8, or int16 where a batch has more slices than that counts."""
        of_all = self.ranks.gather(_joined(signs))
        sizes = [tensor.packed.numel() for tensor in signs]
        for tensor, packed in zip(signs, torch.split(of_all, sizes, dim=1), strict=True):
            rows = packed.view(len(packed), *tensor.packed.shape)
            votes = _sums(rows, _columns(tensor), self._votes_dtype).view(-1)
            yield votes.as_strided(tensor.shape, tensor.stride())

    def of_parameters(self, of_parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Their sums, in the order of the slices."""
        return in_order(self.ranks, of_parts)

    def of_buffers(self, before: Sequence[Tensor], made: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Their means over all slices, formed in float64; whole numbers as the last slice of this rank leaves them."""
        results = list(made[-1])
        changes = [any(not torch.equal(old, part[i]) for part in made) for i, old in enumerate(before)]
        of_all = self.ranks.gather(torch.tensor(changes, device=self.ranks.device)).any(0).tolist()
        changed = [i for i, last in enumerate(results) if of_all[i] and last.is_floating_point()]
        for dtype in dict.fromkeys(results[i].dtype for i in changed):
            chosen = [i for i in changed if results[i].dtype is dtype]
            own = torch.stack([torch.cat([part[i].reshape(-1) for i in chosen]) for part in made])
            slices = self.ranks.gather(own).flatten(0, 1)
            mean = slices[0].double()
            for of_slice in slices[1:]:
                mean = mean + of_slice
            sizes = [results[i].numel() for i in chosen]
            for i, flat in zip(chosen, torch.split(mean / len(slices), sizes), strict=True):
                results[i] = flat.view(results[i].shape)
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

    def of_signs(self, signs: Sequence[BitTensor]) -> Iterator[Tensor]:
        """The signs that most ranks have."""
        most = majority(self.ranks, _joined(signs), seed=self.next_seed())
        for tensor, packed in zip(signs, torch.split(most, [x.packed.numel() for x in signs]), strict=True):
            yield BitTensor(packed.view(tensor.packed.shape), tensor.shape, tensor.stride(), tensor.dtype)


def _columns(signs: BitTensor) -> int:
    """Elements of a packed row."""
    return signs.shape.numel() // max(1, len(signs.packed))


def _joined(signs: Sequence[BitTensor]) -> Tensor:
    """Their bytes, one behind the other."""
    return torch.cat([tensor.packed.reshape(-1) for tensor in signs])


def _sums(packed: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Of the signs of each rank, packed [ranks, rows, bytes]: `dtype` [rows, columns]."""
    votes = torch.empty((packed.shape[1], columns), dtype=dtype, device=packed.device)
    step = max(1, _CHUNK_ELEMENTS // max(1, columns))  # so few that they stay in the processor's cache
    for of_all, part in zip(torch.split(packed, step, dim=1), torch.split(votes, step), strict=True):
        part.copy_(functions.unpack(of_all[0], columns, torch.int8))
        for of_rank in of_all[1:]:
            part += functions.unpack(of_rank, columns, torch.int8)
    return votes
