"""Tiles: arrays of stated size that a weight is laid out on; what wires, converters and amplifiers do to their lines.

The circuit: all cells of a line stay connected. An input of u puts u V on the first junction of its cells and -u V on
the second, through wires without resistance; an input of 0 holds both at 0 V. The line that gathers the currents has a
resistance between neighbouring cells and ends in a virtual ground, behind which an amplifier and a converter are. So
currents are linear in the inputs. For the transposed product the line of an output is driven and the two lines of each
input are sensed, the second's current with the opposite sign.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bnn.random.hashing import random_integers
from hwsim.devices.constants import BOLTZMANN_J_PER_K

_TABLE = 2**20
_SEED_OF_TABLE = 0


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """What a product on arrays is limited by; every error is off by default. Currents are in units of one cell.

    Args:
        size: cells on a line at most, both ways.
        wire_ohm: resistance of a sensed line between two cells.
        adc_bits: width of the converters behind the lines, sign included, 2 or more; None for no steps.
        adc_range: their range: so many standard deviations of the current of a line under inputs of random signs.
        dac_bits: width of what drives the lines, likewise; -1, 0 and +1 need no more than 2.
        sense_offset: standard deviation of the offset of each line's amplifier, which stays the same.
        temperature_K: of the cells, whose thermal noise is added to every current; None for none.
        line_current_A: what a driver gives at most; chosen.

    Raises:
        ValueError: a value is out of its range.
    """

    size: int = 128
    wire_ohm: float = 0.0
    adc_bits: int | None = None
    adc_range: float = 4.0
    dac_bits: int | None = None
    sense_offset: float = 0.0
    temperature_K: float | None = None
    line_current_A: float = 5e-3

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a tile has 1 cell or more on a line, got {self.size}")
        for name in ("adc_bits", "dac_bits"):
            bits = getattr(self, name)
            if bits is not None and not 2 <= bits <= 24:
                raise ValueError(f"{name} of a converter for both signs are 2 to 24, got {bits}")
        for name in ("wire_ohm", "sense_offset"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a finite number of 0 or more, got {getattr(self, name):g}")
        for name in ("adc_range", "line_current_A", "temperature_K"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is a finite number above 0, got {value:g}")

    @property
    def is_random(self) -> bool:
        """Whether products depend on a seed."""
        return self.sense_offset > 0 or self.temperature_K is not None

    def require_drivable(self, cell_current_A: float) -> None:
        """Raises a ValueError for lines whose cells take more current than a driver gives.

        Args:
            cell_current_A: of both junctions of a cell at the read voltage.
        """
        whole_A = self.size * cell_current_A
        if whole_A > self.line_current_A:
            raise ValueError(
                f"a line of {self.size} cells takes {1e3 * whole_A:.3g} mA, more than the"
                f" {1e3 * self.line_current_A:g} mA of its driver: use tiles of"
                f" {int(self.line_current_A / cell_current_A)} cells or less, or set line_current_A"
            )

    def passed(self, loads_S: Tensor) -> Tensor:
        """The part of each cell's current that reaches the amplifier; the rest goes back through the other cells.

        By reciprocity it is the voltage at the cell's place on the line where 1 V is put in the amplifier's place.

        Args:
            loads_S: conductance at each place of the lines, [cells, lines]; the last one is nearest the amplifier.

        Returns:
            In 0..1, the same shape and dtype.
        """
        if not self.wire_ohm:
            return torch.ones_like(loads_S)
        # 1 + r Y of the conductance Y that is at a place and farther away; behind a wire r it is (1 - 1/(1 + r Y))/r.
        # In float64, because of the difference.
        ratio = loads_S.double() * self.wire_ohm + 2.0
        ratio[0] -= 1.0
        rows = ratio.unbind()
        rows[0].reciprocal_()
        for farther, here in itertools.pairwise(rows):
            here.sub_(farther).reciprocal_()
        for here, nearer in zip(reversed(rows[:-1]), reversed(rows[1:]), strict=True):
            here.mul_(nearer)
        return ratio.to(loads_S.dtype)

    def noise(self, line_S: Tensor, *, read_V: float, read_s: float, unit_S: float) -> Tensor | None:
        """Standard deviation of the thermal noise in lines, √(2kTG/t), in units of one cell; None for none.

        It is that of the cells' conductance G at a virtual ground, averaged over the time t of a read (Johnson and
        Nyquist 1928); an amplifier's own noise is not in it.

        Args:
            line_S: conductance of all cells of each line.
            read_V: the read voltage.
            read_s: the time of a read.
            unit_S: difference in conductance that is one unit.
        """
        if self.temperature_K is None:
            return None
        return (2 * BOLTZMANN_J_PER_K * self.temperature_K * line_S / read_s).sqrt() / (read_V * unit_S)


def tiles_of_size(size: int | None, **limits: Any) -> Tiles | None:
    """Tiles of a size with some of the limits of `Tiles`; None for none.

    Raises:
        ValueError: a value is out of its range, or there are limits and no size.
    """
    if size is None:
        if given := [name for name, value in limits.items() if value]:
            raise ValueError(f"{', '.join(given)} of an array without tiles: give tile_size as well")
        return None
    return Tiles(size=size, **limits)


def fast_normal_numbers(like: Tensor, generator: torch.Generator) -> Tensor:
    """Normally distributed numbers in the shape and dtype of `like`: pieces of one table, each from a random place on.

    Drawing each number would take longer than the product whose noise they are. The table has `_TABLE` numbers.
    """
    table, count = _table(like.dtype, like.device), like.numel()
    sizes = [min(_TABLE, count - begun) for begun in range(0, count, _TABLE)]
    starts = torch.randint(_TABLE, (len(sizes),), generator=generator, device=like.device).tolist()
    pieces = [table[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces or [table[:0]])).view(like.shape)


@cache
def _table(dtype: torch.dtype, place: torch.device) -> Tensor:
    """Twice the same numbers, so that a piece may begin anywhere: [2 * _TABLE]."""
    return normal_numbers(_TABLE, _SEED_OF_TABLE, place=place).to(dtype).repeat(2)


def normal_numbers(count: int, *key: int, place: torch.device) -> Tensor:
    """Normally distributed numbers by their index and a key: float64 [count]."""
    integers = random_integers(torch.arange(count, device=place), *key)
    numbers: Tensor = torch.special.ndtri(((integers >> 10).double() + 0.5) / 2**53)
    return numbers
