"""Kills and losses of power at random moments of every write: what was there before stays, and all can go on."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from benchmarks.torture.faults import Storage
from benchmarks.torture.trials import Kind, forked, killed, require, status_of
from benchmarks.torture.writes import drawn, trained

# No write makes as many changes; beyond the last one it simply ends.
_MOST_CHANGES = 300
_LONGEST_S = 0.5


def trial(chance: Random, folder: Path) -> None:
    """Cuts off a write at one of its changes to the disk, or at a moment of its time."""
    write = drawn(chance, folder)
    if chance.random() < 0.25:
        killed(write.act, after_s=_LONGEST_S * chance.random() ** 2)
    else:
        kill_at_a_change(write.act, chance, folder)
    write.check()


def kill_at_a_change(act: Callable[[], object], chance: Random, folder: Path) -> None:
    """Writes in another process, which is killed, or loses its power, at one of its changes to the disk."""
    with tempfile.TemporaryDirectory(prefix="torture-attic-", dir=folder.parent) as attic:
        at = 1 + int(_MOST_CHANGES ** chance.random())
        storage = Storage(folder, chance.choice(["kill", "power"]), at, chance, Path(attic))

        def act_on_it() -> int:
            with storage.watched():
                act()
            return 0

        require(status_of(forked(act_on_it)) in (0, -9), "a write fails though nothing is wrong")


KINDS = (
    Kind(
        "kills",
        "kills and losses of power in the midst of a write: checkpoints, trainings, model files, image caches, pages",
        trial,
        short=8,
        before=trained,
        long=1000,
    ),
)
