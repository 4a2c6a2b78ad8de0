"""A network as JSON values, and back: which modules it consists of, without their tensors and without code.

A module of torch or of this package is told by its class and the arguments of its constructor, which it keeps as
attributes of the same names. A module that is made of such ones, as the blocks of a residual network are, is told by
its class, its plain attributes and its parts. Classes are looked up in a list and never imported by name, so that a
description from anywhere can be built: what it can do is what the listed classes do.
"""

import inspect
import math
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import bnn.layers
import bnn.quantizers
import bnn.quantizers.gradients
from bnn.codec.errors import FormatError
from bnn.errors import first_line
from bnn.models import resnet_cifar, resnet_imagenet
from bnn.models.zoo import densenets, meliusnet, quicknets, real_to_binary

_TORCH = (
    *("Sequential", "ModuleList", "Identity", "Flatten", "Unflatten", "Linear", "Conv1d", "Conv2d", "Conv3d"),
    *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "LayerNorm", "InstanceNorm1d", "InstanceNorm2d"),
    *("MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d"),
    *("AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "ZeroPad2d", "Upsample", "PixelShuffle"),
    *("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout"),
    *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "Mish", "Hardtanh", "Hardswish"),
    *("Hardsigmoid", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Softplus"),
)
_CONTAINERS = (nn.Sequential, nn.ModuleList)
# What is made anew, or comes from the tensors of a file.
_LEFT_OUT = {"device", "dtype", "store", "generator"}
_DEEPEST = 64


def _listed(module: ModuleType, prefix: str, names: Iterable[str]) -> dict[str, type[nn.Module]]:
    return {f"{prefix}.{name}": vars(module)[name] for name in names}


_KNOWN = {
    **_listed(nn, "torch.nn", _TORCH),
    **_listed(bnn.layers, "bnn.layers", set(bnn.layers.__all__) - {"BinaryLayer", "NormFactory"}),
    **_listed(bnn.quantizers, "bnn.quantizers", set(bnn.quantizers.__all__) - {"Quantizer", "ReCU"}),
    **_listed(
        bnn.quantizers.gradients,
        "bnn.quantizers.gradients",
        set(bnn.quantizers.gradients.__all__)
        - {"GradientQuantizer", "LognormalFit", "fit_lognormal", "quantize_gradient"},
    ),
}
"""Classes that are told by the arguments of their constructor."""
_COMPOSED = {
    **_listed(bnn.quantizers, "bnn.quantizers", ["ReCU"]),
    **_listed(resnet_cifar, "bnn.models.resnet_cifar", ["_Block"]),
    **_listed(resnet_imagenet, "bnn.models.resnet_imagenet", ["ResidualUnit", "RealWeightUnit"]),
    **_listed(quicknets, "bnn.models.zoo.quicknets", ["QuickNetUnit"]),
    **_listed(densenets, "bnn.models.zoo.densenets", ["DenseUnit"]),
    **_listed(meliusnet, "bnn.models.zoo.meliusnet", ["ImprovementUnit"]),
    **_listed(real_to_binary, "bnn.models.zoo.real_to_binary", ["RealToBinaryUnit"]),
}
"""Classes of the package that are told by their attributes and parts."""
_NAMES: dict[type[nn.Module], str] = {cls: name for name, cls in {**_KNOWN, **_COMPOSED}.items()}


class NotDescribableError(Exception):
    """A part of a network that has no description; the message says which, and why."""


def describe(module: nn.Module, where: str = "") -> dict[str, Any]:
    """The description of a network, as JSON values. Weights' stores are no part of it.

    A class that is not known here goes by its own name, without its module's, and can be built where it is given.

    Args:
        module: the network.
        where: its name, for errors.

    Raises:
        NotDescribableError: a module keeps what is no JSON value, has tensors of its own in a class that is not known,
            or calls hooks.
    """
    cls = type(module)
    name = _NAMES.get(cls)
    if name in _COMPOSED or name is None:
        return {
            "class": name or cls.__qualname__,
            "attributes": _attributes(module, where),
            "parts": _parts(module, where),
        }
    if cls in _CONTAINERS:
        return {"class": name, "parts": _parts(module, where)}
    arguments = {}
    for argument, parameter in inspect.signature(cls).parameters.items():
        if argument not in _LEFT_OUT and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            value = _argument(module, argument, parameter, where)
            if value is not parameter.default:
                arguments[argument] = value
    return {"class": name, "arguments": arguments}


def build(description: Any, classes: Mapping[str, type[nn.Module]] | None = None) -> nn.Module:
    """The network of a description, with values that do not matter.

    Args:
        description: from wherever.
        classes: of modules that are not known here, by the names that `describe` gives them.

    Raises:
        FormatError: it is not a description, or of a class that is not known.
    """
    try:
        return _built(description, classes or {}, 0)
    except FormatError:
        raise
    except Exception as error:  # constructors refuse their arguments in whichever way
        raise FormatError(
            f"the network's description cannot be built: {type(error).__name__}: {first_line(error)}"
        ) from None


def _parts(module: nn.Module, where: str) -> dict[str, Any]:
    # Parts that are None count: forward asks for them.
    return {
        name: None if part is None else describe(part, f"{where}.{name}".lstrip("."))
        for name, part in module._modules.items()
    }


def _attributes(module: nn.Module, where: str) -> dict[str, Any]:
    plain = nn.Module()
    tensors = [name for kept in (module._parameters, module._buffers) for name in kept]
    if tensors:
        raise NotDescribableError(f"{_called(module, where)} has a tensor of its own, {tensors[0]}")
    own = {name: value for name, value in vars(module).items() if name not in vars(plain)}
    return {name: _json(value, module, name, where) for name, value in own.items()}


def _argument(module: nn.Module, name: str, parameter: inspect.Parameter, where: str) -> Any:
    """The value of a constructor's argument: the attribute of its name; of an optional tensor, whether it is there."""
    if not hasattr(module, name):
        if parameter.default is not parameter.empty:  # of another name, or not used any more
            return parameter.default
        raise NotDescribableError(f"{_called(module, where)} does not keep its argument {name}")
    value = getattr(module, name)
    if isinstance(parameter.default, bool):
        return value if isinstance(value, bool) else value is not None
    if isinstance(value, Tensor):  # the argument was only where it began
        return parameter.default
    if isinstance(value, nn.Module):
        return describe(value, f"{where}.{name}".lstrip("."))
    if isinstance(value, dict):  # of modules by name
        return {"parts": {key: describe(part, f"{where}.{key}".lstrip(".")) for key, part in value.items()}}
    return _json(value, module, name, where)


def _json(value: Any, module: nn.Module, name: str, where: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_json(item, module, name, where) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise NotDescribableError(f"{_called(module, where)} keeps {name}, a {type(value).__name__}")


def _called(module: nn.Module, where: str) -> str:
    return f"its part {where} ({type(module).__name__})" if where else f"a {type(module).__name__}"


def _built(description: Any, classes: Mapping[str, type[nn.Module]], depth: int) -> nn.Module:
    if depth > _DEEPEST:
        raise FormatError(f"a network has modules within modules up to {_DEEPEST} deep, this one has more")
    if not isinstance(description, dict) or not isinstance(description.get("class"), str):
        raise FormatError("the network's description names no class where it should")
    name = description["class"]
    if name in _KNOWN:
        cls = _KNOWN[name]
        if cls in _CONTAINERS:
            return _with_parts(cls(), description, classes, depth)
        return cls(**_arguments(cls, description.get("arguments"), classes, depth))
    if name not in _COMPOSED and name not in classes:
        raise FormatError(
            f"the network has modules of a class that this package does not know, {name!r}: give the class, as in"
            f" `bnn.load(path, classes=[...])`, or its recipe with --recipe"
        )
    own = _COMPOSED.get(name) or classes[name]
    module = own.__new__(own)
    nn.Module.__init__(module)
    for attribute, value in _dict(description.get("attributes")).items():
        if attribute in vars(module) or hasattr(own, attribute):
            raise FormatError(f"a module of class {name!r} cannot have an attribute {attribute!r}")
        object.__setattr__(module, attribute, _value(value))
    return _with_parts(module, description, classes, depth)


def _with_parts(
    module: nn.Module, description: dict[str, Any], classes: Mapping[str, type[nn.Module]], depth: int
) -> nn.Module:
    for name, part in _dict(description.get("parts")).items():
        module.add_module(name, None if part is None else _built(part, classes, depth + 1))
    return module


def _arguments(cls: type[nn.Module], given: Any, classes: Mapping[str, type[nn.Module]], depth: int) -> dict[str, Any]:
    takes = inspect.signature(cls).parameters
    arguments = {name: _argument_value(value, classes, depth) for name, value in _dict(given).items()}
    if any(name in _LEFT_OUT or name not in takes for name in arguments):
        raise FormatError(f"{cls.__name__} does not take the arguments {', '.join(arguments)}")
    if issubclass(cls, bnn.quantizers.gradients.GradientQuantizer) and "generator" in takes:
        arguments["generator"] = torch.Generator()
    return arguments


def _argument_value(value: Any, classes: Mapping[str, type[nn.Module]], depth: int) -> Any:
    if isinstance(value, dict) and "class" in value:
        return _built(value, classes, depth + 1)
    if isinstance(value, dict) and value.keys() == {"parts"}:
        return {name: _built(part, classes, depth + 1) for name, part in _dict(value["parts"]).items()}
    return _value(value)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_value, value))
    if isinstance(value, dict):
        if value.keys() != {"float"}:
            raise FormatError("the network's description has a value that is none")
        return float(value["float"])
    return value


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError("the network's description lacks arguments or parts")
    return value
