"""Kills and losses of power at random moments of every write: what was there before stays, and all can go on."""

import tempfile
from pathlib import Path
from random import Random

from benchmarks.torture.faults import Storage
from benchmarks.torture.trials import Kind, in_child, require
from benchmarks.torture.writes import drawn, trained

# No write makes as many changes; beyond the last one it simply ends.
_MOST_CHANGES = 300
_LONGEST_S = 0.5


def trial(chance: Random, folder: Path) -> None:
    """Cuts off a write at one of its changes to the disk, or at a moment of its time."""
    write = drawn(chance, folder)
    if chance.random() < 0.25:
        in_child(write.act, kill_after_s=_LONGEST_S * chance.random() ** 2)
    else:
        _kill_at_a_change(write.act, chance, folder)
    write.check()


def _kill_at_a_change(act, chance: Random, folder: Path) -> None:  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory(prefix="torture-attic-", dir=folder.parent) as attic:
        at = 1 + int(_MOST_CHANGES ** chance.random())
        storage = Storage(folder, chance.choice(["kill", "power"]), at, chance, Path(attic))

        def act_on_it() -> None:
            with storage.watched():
                act()

        status = in_child(act_on_it)
        require(status in (0, -9), "a write fails though nothing is wrong")


KINDS = (
    Kind(
        "kills",
        "kills and losses of power in the midst of a write: checkpoints, trainings, model files, image caches, pages",
        trial,
        short=25,
        before=trained,
        long=1000,
    ),
)
