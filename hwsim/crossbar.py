"""The array of cells that multiplies: forward and transposed reads as sums of currents, and what goes wrong in them.

An input u of -1, 0 or +1 puts u V on the first junction of a cell and -u V on the second, whose other ends meet on the
line of an output. Its current is V sum(u (G1 - G2)), and V (G_P - G_AP) is one unit of it. An input of 0 gates its
cells off.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnn.layers import BinaryLayer
from bnn.random.hashing import random_integers
from hwsim.store import DeviceStore


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What senses the currents; by default without error. Currents are in units of one cell.

    Args:
        adc_bits: width of the converter, 2 or more; None for one without steps.
        adc_full_scale: largest current that it tells, on both sides; None for the number of inputs.
        sense_offset: standard deviation of the offset of each line's amplifier, which stays the same.
        line_resistance_ohm: of the output line between two neighbouring cells.
        seed: of the offsets.

    Raises:
        ValueError: a value is out of its range.
    """

    adc_bits: int | None = None
    adc_full_scale: float | None = None
    sense_offset: float = 0.0
    line_resistance_ohm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.adc_bits is not None and self.adc_bits < 2:
            raise ValueError(f"a converter for both signs has 2 bits or more, got {self.adc_bits}")
        if self.adc_full_scale is not None and not self.adc_full_scale > 0:
            raise ValueError(f"the full scale of a converter is above 0, got {self.adc_full_scale:g}")
        for name in ("sense_offset", "line_resistance_ohm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is a finite number of 0 or more, got {getattr(self, name):g}")

    def sense(self, current: Tensor, *, inputs: int, lines: int = 1) -> Tensor:
        """What the converters tell of currents.

        Args:
            current: float [B, lines, ...], in units of one cell.
            inputs: number of cells on a line.
            lines: the dimension of the lines, counted from 0.
        """
        if self.sense_offset:
            places = torch.arange(current.shape[lines], device=current.device)
            uniform = ((random_integers(places, self.seed) >> 10).double() + 0.5) / 2**53
            shape = [-1 if k == lines else 1 for k in range(current.dim())]
            current = current + (self.sense_offset * torch.special.ndtri(uniform)).to(current.dtype).view(shape)
        if self.adc_bits is None:
            return current
        largest_code = (1 << (self.adc_bits - 1)) - 1
        step = (self.adc_full_scale or inputs) / largest_code
        codes: Tensor = (current / step).round().clamp(-largest_code, largest_code)
        return codes * step


class Crossbar:
    """One array of cells with its readout.

    Args:
        conductances_S: of the first and the second junctions, [2, outputs, inputs].
        unit_S: G_P - G_AP of the nominal junction, the difference that is one unit.
        readout: senses; by default without error.
    """

    def __init__(self, conductances_S: Tensor, *, unit_S: float, readout: Readout | None = None) -> None:
        self.conductances_S = conductances_S.double()
        self.unit_S = unit_S
        self.readout = readout or Readout()

    @classmethod
    def of(cls, store: DeviceStore, *, readout: Readout | None = None) -> "Crossbar":
        """The array of a store; a convolution's inputs are the values under its kernel, as `unfold` has them."""
        parallel_S, antiparallel_S = store.nominal_conductances_S
        return cls(store.conductances_S(), unit_S=parallel_S - antiparallel_S, readout=readout)

    def forward(self, x: Tensor) -> Tensor:
        """W x, in units of one cell.

        Args:
            x: [B, inputs] of -1, 0 and +1.

        Returns:
            float64 [B, outputs]; without variation and errors of the readout whole numbers, the products of +1 less
            those of -1.
        """
        return self._read(x.double(), self.conductances_S)

    def transposed(self, delta: Tensor, *, bits: int = 8) -> Tensor:
        """Wᵀ δ: the outputs' lines are driven and the inputs' sensed, one bit of δ at a time.

        δ is rounded to whole multiples of a step, of `bits` with the sign; the bits' products are converted one after
        another, shifted and added. So errors of the readout grow with the weight of the bit.

        Args:
            delta: float [B, outputs].
            bits: 2 or more.

        Returns:
            float64 [B, inputs].
        """
        if bits < 2:
            raise ValueError(f"a gradient takes 2 bits or more, its sign included, got {bits}")
        largest_code = (1 << (bits - 1)) - 1
        step = delta.abs().max().double().clamp_min(torch.finfo(torch.float64).tiny) / largest_code
        codes = (delta.double() / step).round().long()
        sign, size = codes.sign(), codes.abs()
        conductances_S = self.conductances_S.transpose(1, 2)
        total = torch.zeros((), dtype=torch.float64)
        for k in range(bits - 1):
            total = total + self._read((sign * (size >> k & 1)).double(), conductances_S) * (1 << k)
        return total * step

    def _read(self, u: Tensor, conductances_S: Tensor) -> Tensor:
        """Sensed currents [B, lines] of inputs [B, cells], with conductances [2, lines, cells]."""
        first, second = conductances_S
        if self.readout.line_resistance_ohm:
            current = _current_with_drop(u, first, second, self.readout.line_resistance_ohm) / self.unit_S
        else:
            # Each cell's difference is divided, so that a whole number of units is whole.
            current = u @ ((first - second) / self.unit_S).mT
        return self.readout.sense(current, inputs=u.shape[1])


def _current_with_drop(u: Tensor, first_S: Tensor, second_S: Tensor, line_ohm: float) -> Tensor:
    """Current over V into the amplifier, a virtual ground at the end of each line: [B, lines].

    From the far end on, what lies behind a place on the line is a source of current with a conductance to ground, and
    the resistance to the next place takes the same part of both.
    """
    active = u.abs()
    conductance = u.new_zeros(u.shape[0], first_S.shape[0])
    current = torch.zeros_like(conductance)
    for cell in range(u.shape[1]):
        current = current + u[:, cell, None] * (first_S[:, cell] - second_S[:, cell])
        conductance = conductance + active[:, cell, None] * (first_S[:, cell] + second_S[:, cell])
        # Through the resistance to the next place.
        passed = 1 / (1 + line_ohm * conductance)
        current, conductance = current * passed, conductance * passed
    return current


def attach(model: nn.Module, readout: Readout) -> list[RemovableHandle]:
    """Has the outputs of all layers on junctions sensed by a readout; gradients pass as they are.

    The drop along the lines is not in it.

    Returns:
        Handles whose `remove` takes it away again.
    """

    def sense(readout: Readout, layer: BinaryLayer, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        sensed = readout.sense(output.detach(), inputs=layer.store.size // layer.store.shape[0])
        return output + (sensed - output.detach())

    return [
        module.register_forward_hook(partial(sense, readout))
        for module in model.modules()
        if isinstance(module, BinaryLayer) and isinstance(module.store, DeviceStore)
    ]
