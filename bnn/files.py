"""Files that may be anything: read within bounds, and written whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_DEEPEST = 256
_TOO_DEEP = f"it is nested more than {_DEEPEST} deep"
LEFT_BEHIND = ".bnn-*.new"
"""Names of what a process writes, or has left when it was killed; see `replacing`."""


def require_regular(path: Path) -> None:
    """Refuses to go on with what is no file or a link to one, such as a named pipe, which would wait for its writer.

    Raises:
        OSError: it is something else, or missing.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def open_regular(path: Path) -> IO[bytes]:
    """Opens a regular file for reading; raises as `require_regular`, or an OSError where it cannot be opened."""
    require_regular(path)
    return path.open("rb")


def open_to_append(path: Path) -> IO[str]:
    """Opens a regular file, or makes one, to add text to its end; raises as `open_regular`."""
    if path.exists():
        require_regular(path)
    return path.open("a", encoding="utf-8")


def read_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """Reads a regular file of at most `limit_bytes`.

    Raises:
        OSError: it is larger, or as `open_regular`.
    """
    with open_regular(path) as file:
        content = file.read(limit_bytes + 1) if os.fstat(file.fileno()).st_size <= limit_bytes else None
    if content is None or len(content) > limit_bytes:
        raise OSError(errno.EFBIG, f"it has more than {limit_bytes} bytes", str(path))
    return content


def read_json(path: Path, *, limit_bytes: int) -> Any:
    """Reads a JSON value from a file.

    Raises:
        OSError: as `read_bytes`.
        ValueError: as `parse_json`.
    """
    return parse_json(read_bytes(path, limit_bytes=limit_bytes))


def parse_json(content: bytes, *, finite: bool = False) -> Any:
    """A JSON value in UTF-8.

    Args:
        content: the text.
        finite: whether to refuse NaN and infinities, which Python's JSON has.

    Raises:
        ValueError: it is no such text, or nested more than 256 deep, which few functions could follow.
    """
    try:
        value = json.loads(content.decode(), parse_constant=_no_number if finite else None)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(value)
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            part
            for whole in level
            if isinstance(whole, (dict, list, tuple))
            for part in (whole.values() if isinstance(whole, dict) else whole)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def sealed(fields: dict[str, Any]) -> bytes:
    """A JSON object with a checksum: canonical JSON of the fields and of the SHA-256 of their own canonical JSON.

    Raises:
        TypeError: the fields are no JSON values.
        ValueError: they are nested more than 256 deep, or in a circle.
    """
    _check_depth(fields)
    return _canonical({**fields, "sha256": hashlib.sha256(_canonical(fields)).hexdigest()})


def unsealed(content: bytes) -> dict[str, Any]:
    """The fields of what `sealed` gave.

    Raises:
        ValueError: it is not that, as where a bit has changed.
    """
    fields = parse_json(content)
    seal = fields.pop("sha256", None) if isinstance(fields, dict) else None
    if seal is None or content != sealed(fields):
        raise ValueError("its SHA-256 is wrong")
    return fields  # type: ignore[no-any-return]


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when all of it is on the disk; on an error it vanishes.

    Until then it is `.bnn-*.new` in the same folder. What a kill has left under such a name goes with the next write
    into the folder: a process that still writes holds a lock, which the system frees with the process.

    Raises:
        OSError: the file cannot be written, or is a folder or a device; what was there before is as it was.
    """
    if path.exists():
        require_regular(path)
    remove_left_behind(path.parent)
    temporary, file = _new_file(path.parent)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_left_behind(folder: Path) -> None:
    """Removes what killed processes have left of `replacing` in a folder."""
    for path in folder.glob(LEFT_BEHIND):
        with suppress(OSError), open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _new_file(folder: Path) -> tuple[Path, IO[bytes]]:
    """A file that is there and locked; without a lock where the file system has none, and then nobody removes it."""
    while True:
        path = folder / f".bnn-{secrets.token_hex(8)}.new"
        file = path.open("xb")
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return path, file
        file.close()  # another process took it for left behind before it was locked


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
