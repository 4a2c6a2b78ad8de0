"""Executes a user's Python file as a module."""

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
    module = ModuleType(f"file_{path.stem}")
    module.__file__ = str(path)
    # Dataclasses and annotations look their module up there.
    sys.modules[module.__name__] = module
    try:
        # Not by Python's importer, which would take compiled code that lies beside the file, and leave some there.
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        raise RecipeError(f"{path} cannot be executed: {type(error).__name__}: {error}") from error
    return module
