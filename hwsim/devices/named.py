"""The laws of switching and the junctions that the modules of this folder define, by their names.

They are found by their types, so that a new one is in the command line and the tests once its file is here.
"""

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import hwsim.devices
from hwsim.devices.base import DeviceModel, SwitchingModel
from hwsim.devices.mtj import MTJ


def laws() -> dict[str, type[SwitchingModel]]:
    """The laws of switching: concrete subclasses of `SwitchingModel`, by their `name`."""
    classes = [value for value in _definitions() if inspect.isclass(value) and not inspect.isabstract(value)]
    return {law.name: law for law in classes if issubclass(law, SwitchingModel)}


def junctions() -> dict[str, Callable[[], DeviceModel]]:
    """The junctions: functions without required arguments that are annotated to return a `DeviceModel`.

    Returns:
        The functions by their names, with - in place of _.
    """
    return _makers(DeviceModel)


def mtjs() -> dict[str, Callable[[], MTJ]]:
    """Those `junctions` that are an `MTJ`, so that they have an overdrive and a temperature."""
    return _makers(MTJ)


def _makers(kind: type) -> dict[str, Callable[[], Any]]:
    functions = [value for value in _definitions() if inspect.isfunction(value)]
    return {function.__name__.replace("_", "-"): function for function in functions if _makes(function, kind)}


def _makes(function: Callable[..., Any], kind: type) -> bool:
    signature = inspect.signature(function)
    result = signature.return_annotation
    needs_nothing = all(parameter.default is not parameter.empty for parameter in signature.parameters.values())
    return needs_nothing and inspect.isclass(result) and issubclass(result, kind)


def _definitions() -> Iterator[Any]:
    """What the modules define themselves, but for private names."""
    for module in _modules():
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__:
                yield value


def _modules() -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(hwsim.devices.__path__):
        yield import_module(f"hwsim.devices.{module.name}")
