"""The networks that `bnn budget` knows by name, and those of the user's files."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnn.cli.arguments import require_choice
from bnn.errors import BnnError, RunError, UsageError, first_line
from bnn.models import networks
from bnn.models.torchvision_networks import PREFIX, require_network, torchvision_network
from bnn.training.execute import execute, is_python_file


@dataclass(frozen=True)
class NetworkBuilder:
    """A function that makes a network."""

    name: str
    function: Callable[..., Any]
    """Called without arguments, or with `input_shape` if it takes that."""
    input_shape: tuple[int, ...]
    """Shape of one example."""

    def build(self) -> nn.Module:
        """Makes the network.

        Raises:
            RunError: the function fails, or does not give a network.
        """
        try:
            takes_shape = "input_shape" in inspect.signature(self.function).parameters
            model = self.function(input_shape=self.input_shape) if takes_shape else self.function()
        except (BnnError, MemoryError):
            raise
        except Exception as error:  # a user's function may raise anything
            shape = "x".join(map(str, self.input_shape))
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise RunError(f"{self.name} cannot be built for examples of {shape}: {reason}") from error
        if not isinstance(model, nn.Module):
            raise RunError(f"{self.name} must return a torch.nn.Module, not {type(model).__name__}")
        return model

    def build_on_meta(self) -> nn.Module:
        """The network without memory for its tensors."""
        with torch.device("meta"):
            model = self.build()
        has_memory = any(not tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
        return model.to("meta") if has_memory else model


def find_network(name: str, input_shape: tuple[int, ...] | None) -> NetworkBuilder:
    """A network of `bnn.models`, or one of the user's file.

    Args:
        name: of the function; or torchvision:NAME, a classifier of torchvision with binary layers; or
            path/to/file.py:name of a function, a class or a module that is ready. The file is
            executed.
        input_shape: of one example; a network of `bnn.models` has one by default.

    Raises:
        UsageError: there is no such network, or the shape is missing.
        DataError: torchvision is not installed.
        RecipeError: the file fails.
    """
    if name.endswith(".py"):
        raise UsageError(f"say which function of {name} makes the network, as in {name}:build")
    if name.startswith(PREFIX):
        require_network(name.removeprefix(PREFIX))
        return NetworkBuilder(name, partial(_of_torchvision, name.removeprefix(PREFIX)), input_shape or (3, 224, 224))
    path, colon, function_name = name.rpartition(":")
    if colon:
        if input_shape is None:
            raise UsageError(f"say what {name} takes: --input with the shape of one example, as in --input 3,32,32")
        return NetworkBuilder(name, _function_of_file(Path(path), function_name), input_shape)
    builders = networks()
    require_choice("network", name, [*builders, f"{PREFIX}NAME", "path/to/file.py:function"])
    default = inspect.signature(builders[name]).parameters["input_shape"].default
    return NetworkBuilder(name, builders[name], input_shape or default)


def _of_torchvision(name: str, *, input_shape: tuple[int, int, int]) -> nn.Module:
    return torchvision_network(name, input_shape=input_shape).network


def _function_of_file(path: Path, name: str) -> Callable[..., Any]:
    if not is_python_file(path):
        raise UsageError(f"{path} is not a Python file: name one and its function, as in my_model.py:build")
    callables = {
        key: value for key, value in vars(execute(path)).items() if callable(value) and not key.startswith("_")
    }
    require_choice("function", name, callables, where=f" in {path}")
    found: Callable[..., Any] = callables[name]
    # A preset changes the network that it is given, and more than one may be asked for.
    return partial(copy.deepcopy, found) if isinstance(found, nn.Module) else found
