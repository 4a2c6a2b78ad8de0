"""Physics of magnetic tunnel junctions, in SI units and torch alone.

A `DeviceModel` is a junction, or an array of them: its resistance and how it switches. An `MTJ` is one of physical
constants, whose `SwitchingModel` gives the law in reduced units; a `MeasuredDevice` is one of a measured table.
"""

from hwsim.devices import junctions
from hwsim.devices.base import DeviceModel, Pulse, SwitchingModel, ValidityWarning
from hwsim.devices.butler import Butler
from hwsim.devices.erf import Erf
from hwsim.devices.fokker_planck import FokkerPlanck
from hwsim.devices.measured import MeasuredDevice, MeasuredTable
from hwsim.devices.mtj import MTJ
from hwsim.devices.neel_brown import NeelBrown

__all__ = [
    "MTJ",
    "Butler",
    "DeviceModel",
    "Erf",
    "FokkerPlanck",
    "MeasuredDevice",
    "MeasuredTable",
    "NeelBrown",
    "Pulse",
    "SwitchingModel",
    "ValidityWarning",
    "junctions",
]
