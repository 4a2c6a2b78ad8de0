"""Executes a user's Python file as a module."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from bnn.errors import RecipeError


def is_python_file(path: Path) -> bool:
    """Whether `path` is a Python file that exists."""
    return path.suffix == ".py" and path.is_file()


def execute(path: Path) -> ModuleType:
    """Executes a Python file. Only do so with files that you trust.

    Args:
        path: see `is_python_file`.

    Raises:
        RecipeError: the file fails.
    """
    spec = importlib.util.spec_from_file_location(f"file_{path.stem}", path)
    assert spec is not None  # so for every file that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and annotations look their module up there.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RecipeError(f"{path} cannot be executed: {type(error).__name__}: {error}") from error
    return module
