"""The junctions of one weight: the nominal device with the variation and the faults that a seed gives."""

from functools import cached_property

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel
from hwsim.nonidealities import NonIdealities
from hwsim.pulses import IdenticalJunctions, JunctionArray, VaryingJunctions, identical_junctions
from hwsim.write_scheme import WriteScheme


class SampledJunctions:
    """Two junctions for each cell of an array, made from their seed when they are first needed.

    Args:
        device: the nominal junction.
        scheme: makes the pulses.
        nonidealities: what varies, and what is at fault.
        shape: of the cells: out, columns.
        seed: of the variation and the faults.
        place: torch's device.
    """

    def __init__(
        self,
        device: DeviceModel,
        scheme: WriteScheme,
        nonidealities: NonIdealities,
        *,
        shape: tuple[int, int],
        seed: int,
        place: torch.device,
    ) -> None:
        self._nominal = device
        self._scheme = scheme
        self._nonidealities = nonidealities
        self._shape = (2, *shape)
        self._seed = seed
        self._place = place

    @cached_property
    def device(self) -> DeviceModel:
        """The device, with constants that vary as float32 [2, out, columns]."""
        nonidealities = self._nonidealities
        if not nonidealities.varies:
            return nonidealities.junction(self._nominal)
        array = nonidealities.array(self._nominal, self._shape, self._seed)
        return array.map_constants(lambda constant: constant.to(self._place))

    @cached_property
    def pulsed(self) -> JunctionArray:
        """The junctions as they get pulses."""
        if self.identical is not None:
            return self.identical
        return VaryingJunctions(self._nominal, self._scheme, self._nonidealities, self.device, self._place)

    @cached_property
    def identical(self) -> IdenticalJunctions | None:
        """The junctions as they get pulses, where junctions and pulses are alike."""
        nonidealities = self._nonidealities
        if nonidealities.varies or nonidealities.noisy:
            return None
        return identical_junctions(self._nominal, self._scheme, nonidealities, self._place)

    @cached_property
    def faulty(self) -> Tensor | None:
        """Which junctions never switch, bool [2, out, columns]; None if there is no such fault."""
        return self.faults().any(dim=0) if self._nonidealities.faults else None

    def rows(self, rows: slice) -> DeviceModel:
        """The device of some rows' junctions."""
        return self.device.map_constants(lambda constant: constant[:, rows])

    def faults(self) -> Tensor:
        """See `NonIdealities.stuck`: bool [3, 2, out, columns]."""
        return self._nonidealities.stuck(self._shape, self._seed).to(self._place)
