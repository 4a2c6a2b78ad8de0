"""Simulated magnetic tunnel junctions as the weights of a network.

The names below are imported when they are first used, so that `import hwsim` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.crossbar import Crossbar, Readout
    from hwsim.devices import (
        MTJ,
        Butler,
        DeviceModel,
        Erf,
        FokkerPlanck,
        MeasuredDevice,
        MeasuredTable,
        NeelBrown,
        SwitchingModel,
        ValidityWarning,
        junctions,
    )
    from hwsim.meters import DeviceMeter
    from hwsim.nonidealities import NonIdealities
    from hwsim.store import DeviceStore
    from hwsim.write_schemes import scheme_named

_HOMES = {
    "crossbar": ("Crossbar", "Readout"),
    "devices": (
        "MTJ",
        "Butler",
        "DeviceModel",
        "Erf",
        "FokkerPlanck",
        "MeasuredDevice",
        "MeasuredTable",
        "NeelBrown",
        "SwitchingModel",
        "ValidityWarning",
        "junctions",
    ),
    "meters": ("DeviceMeter",),
    "nonidealities": ("NonIdealities",),
    "store": ("DeviceStore",),
    "write_schemes": ("scheme_named",),
}

__all__ = [
    "MTJ",
    "Butler",
    "Crossbar",
    "DeviceMeter",
    "DeviceModel",
    "DeviceStore",
    "Erf",
    "FokkerPlanck",
    "MeasuredDevice",
    "MeasuredTable",
    "NeelBrown",
    "NonIdealities",
    "Readout",
    "SwitchingModel",
    "ValidityWarning",
    "junctions",
    "scheme_named",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"hwsim.{module}"), name)
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
