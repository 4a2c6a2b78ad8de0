"""Recipes: Python files whose function `recipe` returns a `Run`. Its parameters are its command line."""

import hashlib
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docstring_parser
import jsonargparse

from bnn.errors import BnnError, RecipeError, UsageError, near_options
from bnn.training.execute import execute, is_python_file
from bnn.training.run import Run


@dataclass(frozen=True)
class Recipe:
    """A recipe's function and the file that it is from."""

    function: Callable[..., Run]
    path: Path
    """Absolute path of the file."""
    sha256: str
    """SHA-256 of the file's content."""


def load_recipe(path: Path) -> Recipe:
    """Executes a recipe's file and takes the function `recipe` from it. Only load files that you trust.

    Raises:
        RecipeError: there is no such file, or it cannot be executed or has no such function.
    """
    if not is_python_file(path):
        raise RecipeError(f"{path} is not a recipe: name a Python file with a function `recipe`, as recipes/digits.py")
    module = execute(path)
    function = getattr(module, "recipe", None)
    if not inspect.isfunction(function):
        raise RecipeError(f"{path} has no function `recipe` that returns a bnn.training.Run")
    return Recipe(function=function, path=path.absolute(), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def recipe_parser(recipe: Recipe, *, prog: str) -> jsonargparse.ArgumentParser:
    """A command line made of a recipe's parameters: their types, defaults and descriptions.

    Args:
        recipe: every parameter has a type and can be passed by name.
        prog: what the user typed to get here.

    Raises:
        RecipeError: a parameter has no type or cannot be an option.
    """
    documentation = docstring_parser.parse(recipe.function.__doc__ or "")
    help_of = {parameter.arg_name: parameter.description for parameter in documentation.params}
    try:
        types = typing.get_type_hints(recipe.function)
    except NameError as error:
        raise RecipeError(f"{recipe.path}: the types of recipe's parameters cannot be resolved: {error}") from None
    parser = jsonargparse.ArgumentParser(
        prog=prog, description=documentation.short_description, exit_on_error=False, allow_abbrev=False
    )
    group = parser.add_argument_group("options of the recipe")
    for name, parameter in inspect.signature(recipe.function).parameters.items():
        if name not in types:
            raise RecipeError(f"{recipe.path}: parameter {name} of recipe has no type, so no command line can be made")
        how: dict[str, Any] = {"help": help_of.get(name)}
        if parameter.default is inspect.Parameter.empty:
            how["required"] = True
        else:
            how["default"] = parameter.default
        if types[name] is bool:
            how["action"] = jsonargparse.ActionYesNo(no_prefix="no-")
        else:
            how["type"] = types[name]
        try:
            group.add_argument("--" + name.replace("_", "-"), **how)
        except (ValueError, jsonargparse.ArgumentError) as error:
            raise RecipeError(f"{recipe.path}: parameter {name} of recipe cannot be an option: {error}") from None
    return parser


def parse_arguments(parser: jsonargparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """Values of a command line.

    Raises:
        UsageError: an option is unknown or missing, or its value is not of its type.
    """
    try:
        return vars(parser.parse_args(list(arguments)))
    except jsonargparse.ArgumentError as error:
        message = str(error).replace("<class '", "").replace("'>", "").replace("Parser key", "option")
        near = near_options(message, parser._option_string_actions)
        raise UsageError(f"{message}{near}; see `{parser.prog} --help`") from None


def values_to_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's arguments for a run's configuration; paths become absolute.

    Raises:
        RecipeError: a value has no JSON form, so that the run could not be resumed.
    """
    plain = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}
    for name, value in plain.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"the value of {name} cannot be kept in the run's configuration: {error}") from None
    return plain


def values_from_json(recipe: Recipe, values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's arguments from a run's configuration.

    Raises:
        RecipeError: they do not fit the recipe's parameters.
    """
    try:
        parsed: dict[str, Any] = vars(recipe_parser(recipe, prog="bnn").parse_object(dict(values)))
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise RecipeError(f"the run's configuration does not fit {recipe.path}: {error}") from None
    return parsed


def build(recipe: Recipe, values: Mapping[str, Any]) -> Run:
    """Calls a recipe.

    Raises:
        RecipeError: a value is out of its range, or the recipe fails or does not return a `Run`.
    """
    try:
        run = recipe.function(**values)
    except (BnnError, MemoryError):
        raise
    except Exception as error:
        raise RecipeError(f"{recipe.path}: {type(error).__name__}: {error}") from error
    if not isinstance(run, Run):
        raise RecipeError(f"{recipe.path}: recipe must return a bnn.training.Run, not {type(run).__name__}")
    return run
