"""A standard output that a training outlives: `bnn train ... | head -1`, a full disk, a terminal that is closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


@contextmanager
def outlived_output() -> Iterator[None]:
    """While it is entered, output and errors that can no longer be written are dropped instead of raising an error."""
    before = sys.stdout, sys.stderr
    # A stream that was closed from the start is None, and drops everything by itself.
    sys.stdout, sys.stderr = (stream and cast(TextIO, _Outlived(stream)) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def drop(stream: TextIO | None) -> None:
    """Sends a stream to nowhere, with what it still holds; Python would otherwise fail to write that when it exits."""
    if stream is None:
        return
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


class _Outlived:
    """A text stream that drops what it cannot write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            drop(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
