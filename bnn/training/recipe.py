"""Recipes: Python files whose function `recipe` returns a `Run`. Its parameters are its command line.

A file may leave the loading of its data to a second function, `data`, whose parameters join the command line and whose
result is `recipe`'s argument `data`. Its network can then be built where the data are not, from what a run's directory
says of them.
"""

import difflib
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

import bnn
from bnn.data import Dataset
from bnn.errors import BnnError, RecipeError, UsageError, first_line, near_options
from bnn.training.execute import execute, is_python_file
from bnn.training.run import Run

_DATA = "data"
_PACKAGE = Path(bnn.__file__).parent
# In an installed package, and in a clone of the repository.
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")


@dataclass(frozen=True)
class Recipe:
    """A recipe's functions and the file that they are from."""

    function: Callable[..., Run]
    """The function `recipe`."""
    load_data: Callable[..., Dataset] | None
    """The function `data`, or None where `function` loads its data itself."""
    path: Path
    """Absolute path of the file."""
    content: bytes
    """The file's content."""

    def __call__(self, **values: Any) -> Run:
        """Loads the data and makes the run.

        Args:
            values: of the command line's parameters, see `parameters`; those with defaults may be left out.
        """
        if self.load_data is None:
            return self.function(**values)
        unknown = values.keys() - self.parameters.keys()
        if unknown:
            raise TypeError(f"there is no parameter {sorted(unknown)[0]!r}")
        return self.with_data(self.load_data(**_of(self.load_data, values)), values)

    def with_data(self, data: Dataset, values: Mapping[str, Any]) -> Run:
        """Makes the run of data that are there, or of `Dataset.described`, without opening a file of data.

        Args:
            data: takes the place of what the function `data` would load.
            values: as of a call; what only `data` takes is not looked at.

        Raises:
            RecipeError: the recipe loads its data itself.
        """
        if self.load_data is None:
            raise RecipeError(f"{self.path} loads its data in `recipe`: give it a function `data` for that")
        return self.function(data, **_of(self.function, values))

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def name(self) -> str:
        """Name of a recipe of the package, else the path."""
        named = find_recipe(self.path.stem)
        return self.path.stem if named is not None and named.samefile(self.path) else str(self.path)

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Those of the command line: of `data`, then of `recipe`."""
        own = dict(inspect.signature(self.function).parameters)
        if self.load_data is None:
            return own
        own.pop(_DATA, None)
        return {**self.data_parameters, **own}

    @property
    def data_parameters(self) -> dict[str, inspect.Parameter]:
        """Those of `data`."""
        return {} if self.load_data is None else dict(inspect.signature(self.load_data).parameters)


def recipe_names() -> dict[str, Path]:
    """The recipes of the package: names and files, in the order of the names."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.py"))} if folder else {}


def find_recipe(name: str) -> Path | None:
    """The file of a recipe of the package; None where there is none of this name."""
    return recipe_names().get(name)


def locate_recipe(text: str) -> Path:
    """The file that a command line means: the name of a recipe of the package, or a path.

    Raises:
        RecipeError: there is neither.
    """
    path = Path(text)
    if is_python_file(path):
        return path
    named = find_recipe(text)
    if named is not None:
        return named
    names = recipe_names()
    near = difflib.get_close_matches(path.stem, names, n=1)
    hint = f", but there is {near[0]!r}" if near else ""
    raise RecipeError(
        f"{text} is not a recipe{hint}: name one of {', '.join(names)}, or a Python file with a function `recipe`"
    )


def load_recipe(path: Path) -> Recipe:
    """Executes a recipe's file and takes the functions `recipe` and `data` from it. Only load files that you trust.

    Raises:
        RecipeError: there is no such file, or it cannot be executed or has no such function.
    """
    if not is_python_file(path):
        raise RecipeError(f"{path} is not a recipe: name a Python file with a function `recipe`, as recipes/digits.py")
    module = execute(path)
    function, load_data = getattr(module, "recipe", None), getattr(module, _DATA, None)
    if not inspect.isfunction(function):
        raise RecipeError(f"{path} has no function `recipe` that returns a bnn.training.Run")
    takes_data = _DATA in inspect.signature(function).parameters
    if takes_data and not inspect.isfunction(load_data):
        raise RecipeError(f"{path} has no function `data` that returns the bnn.data.Dataset that its `recipe` takes")
    return Recipe(
        function=function,
        load_data=load_data if takes_data else None,
        path=path.absolute(),
        content=path.read_bytes(),
    )


def recipe_parser(
    recipe: Recipe, *, prog: str, only: Sequence[str] | None = None, defaults: Mapping[str, Any] | None = None
) -> jsonargparse.ArgumentParser:
    """A command line made of a recipe's parameters: their types, defaults and descriptions.

    Args:
        recipe: every parameter has a type and can be passed by name.
        prog: what the user typed to get here.
        only: the parameters to offer; None offers all.
        defaults: other defaults than the recipe's own.

    Raises:
        RecipeError: a parameter has no type or cannot be an option.
    """
    functions = [function for function in (recipe.load_data, recipe.function) if function is not None]
    documentation = [docstring_parser.parse(function.__doc__ or "") for function in functions]
    help_of = {parameter.arg_name: parameter.description for page in documentation for parameter in page.params}
    try:
        types = {name: of for function in functions for name, of in typing.get_type_hints(function).items()}
    except NameError as error:
        raise RecipeError(f"{recipe.path}: the types of recipe's parameters cannot be resolved: {error}") from None
    parser = jsonargparse.ArgumentParser(
        prog=prog, description=documentation[-1].short_description, exit_on_error=False, allow_abbrev=False
    )
    group = parser.add_argument_group("options of the recipe")
    for name, parameter in recipe.parameters.items():
        if only is not None and name not in only:
            continue
        if name not in types:
            raise RecipeError(f"{recipe.path}: parameter {name} of recipe has no type, so no command line can be made")
        how: dict[str, Any] = {"help": help_of.get(name)}
        if name in (defaults or {}):
            how["default"] = (defaults or {})[name]
        elif parameter.default is inspect.Parameter.empty:
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
        message = " ".join(str(error).split())  # of what was typed, too
        message = message.replace("<class '", "").replace("'>", "").replace("Parser key", "option")
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


def build(recipe: Recipe, values: Mapping[str, Any], *, data: Dataset | None = None) -> Run:
    """Calls a recipe.

    Args:
        recipe: the recipe.
        values: its arguments.
        data: takes the place of what it would load; None loads.

    Raises:
        RecipeError: a value is out of its range, or the recipe fails or does not return a `Run`.
    """
    try:
        run = recipe(**values) if data is None else recipe.with_data(data, values)
    except (BnnError, MemoryError):
        raise
    except Exception as error:
        raise RecipeError(f"{recipe.path}: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(run, Run):
        raise RecipeError(f"{recipe.path}: recipe must return a bnn.training.Run, not {type(run).__name__}")
    return run


def load_data(recipe: Recipe, values: Mapping[str, Any]) -> Dataset:
    """The data of a recipe; where it loads them itself, by making the whole run.

    Raises:
        RecipeError: as `build`.
    """
    if recipe.load_data is None:
        return build(recipe, values).data
    try:
        return recipe.load_data(**_of(recipe.load_data, values))
    except (BnnError, MemoryError):
        raise
    except Exception as error:
        raise RecipeError(f"{recipe.path}: {type(error).__name__}: {first_line(error)}") from error


def _of(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that a function takes by name."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in names and name != _DATA}
