"""Disks that are full, fail or become read-only, and an output that takes nothing: one line, and nothing is lost."""

import tempfile
from pathlib import Path
from random import Random

from benchmarks.torture.faults import Storage
from benchmarks.torture.trials import Kind, require_one_line
from benchmarks.torture.writes import drawn, trained
from bnn.errors import BnnError

_MOST_CHANGES = 300


def trial(chance: Random, folder: Path) -> None:
    """Lets the disk fail from one of the changes on that a write makes to it."""
    write = drawn(chance, folder)
    with tempfile.TemporaryDirectory(prefix="torture-attic-", dir=folder.parent) as attic:
        at = 1 + int(_MOST_CHANGES ** chance.random())
        storage = Storage(folder, chance.choice(["full", "error", "read-only"]), at, chance, Path(attic))
        try:
            with storage.watched():
                write.act()
        except BnnError as error:
            require_one_line(error)
    write.check()


KINDS = (
    Kind(
        "disks",
        "disks that are full, fail or become read-only in the midst of a write",
        trial,
        short=6,
        before=trained,
        long=1000,
    ),
)
