"""Simulated magnetic tunnel junctions as the weights of a network.

The names below are imported when they are first used, so that `import hwsim` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        presets,
    )

__all__ = [
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
    "presets",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("hwsim.devices"), name)
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
