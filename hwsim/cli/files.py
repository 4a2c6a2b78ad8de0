"""Files that a command reads."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bnn.errors import DataError

Content = TypeVar("Content")


def read_file(read: Callable[[Path], Content], path: Path) -> Content:
    """What a function reads from a file.

    Raises:
        DataError: the system does not let it; what the file holds is the function's to refuse.
    """
    try:
        return read(path)
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror}") from None
