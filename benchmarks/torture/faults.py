"""A disk that fails, or a process that dies, at the n-th change that it makes to a folder.

`Storage` stands between Python and the system's calls: opening a file to write, writing, truncating, forcing to disk,
renaming, removing, making a folder. Libraries that write without Python are not seen.
"""

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

FAULTS = ("kill", "power", "full", "error", "read-only")
"""What happens at the n-th change:

kill: the process is killed, in the middle of a write if that is one.
power: besides, what has not been forced to disk is lost: files are cut or hold zeros from where they were last forced,
    and the latest renames and removals in a folder that has not been forced are undone. Folders that were made stay.
full: from there on the disk takes no byte more.
error: this one change fails (EIO).
read-only: from there on nothing can be changed.
"""
_RAISED = {"full": errno.ENOSPC, "error": errno.EIO, "read-only": errno.EROFS}
_NEEDS_ROOM = ("open", "write", "mkdir", "fsync")


class Storage:
    """Counts the changes to a folder, and lets a fault happen at one of them.

    Args:
        root: the folder; changes elsewhere are not seen.
        fault: one of `FAULTS`.
        at: which change, counted from 1.
        chance: how much of a write gets through, and what is lost of what was not forced to disk.
        attic: an empty folder on the same disk, for what a loss of power brings back.
    """

    def __init__(self, root: Path, fault: str, at: int, chance: Random, attic: Path) -> None:
        self.changes = 0
        self._root, self._fault, self._at = os.path.realpath(root), fault, at
        self._chance, self._attic = chance, attic
        self._files: dict[int, tuple[int, int]] = {}  # by inode: a descriptor, and the bytes that are on the disk
        self._undo: list[tuple[str, Callable[[], None]]] = []  # of a folder

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While it lasts, changes are seen."""
        with patch.multiple(
            os,
            open=self._os_open,
            replace=self._replace,
            rename=self._replace,
            unlink=self._unlink,
            remove=self._unlink,
            fsync=self._fsync,
            mkdir=self._changing("mkdir", os.mkdir),
            truncate=self._changing("write", os.truncate),
        ), patch.object(io, "open", self._open), patch.object(builtins, "open", self._open):  # fmt: skip
            yield

    def change(self, what: str, path: str, partly: Callable[[], object] = lambda: None) -> None:
        """A change that is about to happen; `partly` makes a part of it."""
        if not os.path.realpath(path).startswith(self._root):
            return
        self.changes += 1
        if self._fault in ("kill", "power"):
            if self.changes == self._at:
                partly()
                if self._fault == "power":
                    self._lose()
                os.kill(os.getpid(), signal.SIGKILL)
        elif self.changes == self._at or (self.changes > self._at and self._fault != "error"):
            if self._fault == "full" and what not in _NEEDS_ROOM:
                return
            if self.changes == self._at and self._fault != "read-only":
                partly()
            number = _RAISED[self._fault]
            raise OSError(number, os.strerror(number), path)

    def part(self, size: int) -> int:
        """How many of some bytes get through."""
        return self._chance.randint(0, size)

    def note_file(self, descriptor: int) -> None:
        """Remembers a file that has been opened to write: what it holds already is on the disk."""
        if self._fault != "power":
            return  # a second descriptor would hold the file's locks
        facts = os.fstat(descriptor)
        if facts.st_ino not in self._files:
            self._files[facts.st_ino] = os.dup(descriptor), facts.st_size

    def _lose(self) -> None:
        for descriptor, on_disk in self._files.values():
            size = os.fstat(descriptor).st_size
            if size > on_disk:
                kept = self._chance.randint(on_disk, size)
                os.ftruncate(descriptor, kept)
                if self._chance.random() < 1 / 3:
                    os.ftruncate(descriptor, size)  # which fills with zeros
        lost = self._chance.randint(0, len(self._undo))
        for _, undo in reversed(self._undo[len(self._undo) - lost :]):
            undo()

    def _kept(self, path: Any) -> str | None:
        """A second name of a file, by which it can come back."""
        name = os.path.join(self._attic, str(self.changes))
        try:
            os.link(path, name)
        except OSError:
            return None
        return name

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        self.change("rename", os.fspath(target))
        before = self._kept(target)
        _rename(source, target, **options)

        def undo() -> None:
            _rename(target, source)
            if before is not None:
                os.link(before, target)

        self._undo.append((os.path.dirname(os.path.realpath(target)), undo))

    def _unlink(self, path: Any, **options: Any) -> None:
        self.change("unlink", os.fspath(path))
        before = self._kept(path)
        _unlink(path, **options)
        if before is not None:
            self._undo.append((os.path.dirname(os.path.realpath(path)), lambda: os.link(before, path)))

    def _fsync(self, descriptor: Any) -> None:
        descriptor = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self.change("fsync", path)
        _fsync(descriptor)
        facts = os.fstat(descriptor)
        if facts.st_ino in self._files:
            self._files[facts.st_ino] = self._files[facts.st_ino][0], facts.st_size
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]

    def _changing(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def changing(path: Any, *arguments: Any, **options: Any) -> Any:
            self.change(what, os.fspath(path))
            return call(path, *arguments, **options)

        return changing

    def _os_open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return _os_open(path, flags, *arguments, **options)
        self.change("open", os.fspath(path))
        descriptor = _os_open(path, flags, *arguments, **options)
        self.note_file(descriptor)
        return descriptor

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
        """`open`, whose files tell of every write that reaches the system."""
        if not set(mode) & set("wax+"):
            return _open(file, mode, buffering, *text, **options)
        closefd, opener = options.pop("closefd", True), options.pop("opener", None)
        if not isinstance(file, int):
            self.change("open", os.fspath(file))
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""), closefd, opener)
        self.note_file(raw.fileno())
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *text, **options)


class _Raw(io.FileIO):
    """A file whose writes the storage hears of."""

    def __init__(self, storage: Storage, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        super().__init__(file, mode, closefd, opener)
        self._storage = storage
        self._path = os.readlink(f"/proc/self/fd/{self.fileno()}")

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        write = super().write
        self._storage.change("write", self._path, lambda: write(view[: self._storage.part(len(view))]))
        return write(view)

    def truncate(self, size: int | None = None) -> int:
        self._storage.change("write", self._path)
        return super().truncate(size)


# The calls themselves.
_open, _os_open, _rename, _unlink, _fsync = io.open, os.open, os.replace, os.unlink, os.fsync
