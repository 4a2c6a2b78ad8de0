"""N:M masks that are as sparse when the weight is transposed: for the forward and the backward product alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.errors import RecipeError

_LARGEST_BLOCK = 16
_BLOCKS_AT_ONCE = 64


@dataclass(frozen=True)
class Transposable:
    """In each block of M x M weights, at most N of each row and of each column are kept.

    Rows are output channels and columns input channels; each place of a convolution's kernel has blocks of its own.
    Both W x and W^T g are then sums of N terms out of M. Blocks at the edge of a weight may be narrower than M, and
    keep as many. Source: Hubara et al. 2021, arXiv 2102.08124.

    Args:
        kept: N, at least 1 and at most M.
        of: M, at most 16.

    Raises:
        RecipeError: they are out of their ranges.
    """

    kept: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.kept <= self.of <= _LARGEST_BLOCK:
            raise RecipeError(f"of N:M, N is at least 1 and at most M, M at most {_LARGEST_BLOCK}, got {self}")

    def __str__(self) -> str:
        """As in 4:8."""
        return f"{self.kept}:{self.of}"

    @classmethod
    def parse(cls, text: str) -> Transposable:
        """The pattern of a text such as 4:8.

        Raises:
            RecipeError: it is none.
        """
        kept, _, of = text.partition(":")
        if not (kept.isdecimal() and of.isdecimal() and max(len(kept), len(of)) <= 2):
            raise RecipeError(f"a pattern of weights is written as 4:8, got {text!r}")
        return cls(int(kept), int(of))

    @property
    def ternary_bits(self) -> float:
        """The least bits of a weight of -a, 0 and a in this pattern: log2 of its masks over M^2, and N / M of signs."""
        return math.log2(legal_masks(self.kept, self.of)) / self.of**2 + self.kept / self.of

    def optimal(self, weight: Tensor) -> Tensor:
        """The mask under which most of |w| is left, by linear programming: vertices of the polytope are masks.

        Args:
            weight: real, [out, in] or [out, in, kh, kw], finite.

        Returns:
            bool, of the weight's shape.

        Raises:
            RecipeError: scipy is missing.
        """
        blocks = _blocks(weight, self.of)
        return _unblocked(
            torch.cat([self._solved(part) for part in torch.split(blocks, _BLOCKS_AT_ONCE)]), weight, self.of
        )

    def _solved(self, blocks: Tensor) -> Tensor:
        try:
            from scipy.optimize import linprog
            from scipy.sparse import eye_array, kron, vstack
        except ModuleNotFoundError as error:
            raise RecipeError(f"the best masks cannot be found ({error}): pip install 'bnn-edge[data]'") from None
        ones = torch.ones(1, self.of).numpy()
        of_block = vstack([kron(eye_array(self.of), ones), kron(ones, eye_array(self.of))])
        sums = kron(eye_array(len(blocks)), of_block, format="csr")
        sizes = blocks / blocks.amax((1, 2), keepdim=True).clamp(min=1e-30)
        # Simplex ends at a vertex, an interior point need not.
        most = [self.kept] * sums.shape[0]
        found = linprog(-sizes.double().flatten().numpy(), A_ub=sums, b_ub=most, bounds=(0, 1), method="highs-ds")
        return torch.from_numpy(found.x > 0.5).view(blocks.shape)

    def greedy(self, weight: Tensor) -> Tensor:
        """A mask under which at least half as much is left: from the largest weight on, each that has room.

        It takes M^2 small steps for all blocks together, and no library. Arguments and result are those of `optimal`.
        """
        blocks = _blocks(weight, self.of)
        order = blocks.flatten(1).argsort(1, descending=True)
        kept = torch.zeros(len(blocks), self.of**2, dtype=torch.bool)
        free = torch.full((2, len(blocks), self.of), self.kept)
        every = torch.arange(len(blocks))
        for place in order.T:
            row, column = place // self.of, place % self.of
            takes = (free[0, every, row] > 0) & (free[1, every, column] > 0)
            kept[every, place] = takes
            free[0, every, row] -= takes.long()
            free[1, every, column] -= takes.long()
        return _unblocked(kept.view(blocks.shape), weight, self.of)


@cache
def legal_masks(kept: int, of: int) -> int:
    """How many masks of M x M have exactly N in each row and each column."""

    @cache
    def ways(rows: int, room: tuple[int, ...]) -> int:
        if rows == 0:
            return 1
        found = 0
        for taken in combinations(range(of), kept):
            left = [free - (column in taken) for column, free in enumerate(room)]
            if min(left) >= 0 and max(left) < rows:
                found += ways(rows - 1, tuple(sorted(left)))
        return found

    return ways(of, (kept,) * of)


def _blocks(weight: Tensor, of: int) -> Tensor:
    """|w| in blocks, [n, M, M], with zeros beyond its edges."""
    places = weight.detach().abs().flatten(2) if weight.dim() > 2 else weight.detach().abs()[..., None]
    rows, columns, _ = places.shape
    padded = F.pad(places.permute(2, 0, 1), (0, -columns % of, 0, -rows % of))
    blocks = padded.reshape(len(padded), -1, of, padded.shape[2] // of, of).transpose(2, 3)
    return blocks.reshape(-1, of, of)


def _unblocked(blocks: Tensor, weight: Tensor, of: int) -> Tensor:
    """What `_blocks` has made of a weight, in its shape."""
    rows, columns = weight.shape[:2]
    tall, wide = -(-rows // of), -(-columns // of)
    places = blocks.view(-1, tall, wide, of, of).transpose(2, 3).reshape(-1, tall * of, wide * of)
    return places[:, :rows, :columns].permute(1, 2, 0).reshape(weight.shape)
