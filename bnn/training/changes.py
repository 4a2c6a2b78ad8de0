"""What has changed since a run began, of that on which the bits of its results depend."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn.errors import RunError
from bnn.training.directory import versions

# Not the version of Python, which no figure depends on.
_WORDS = {"bnn": "release", "torch": "torch", "kernels": "kernels", "threads": "threads"}


def changes(began: Any, now: Mapping[str, str]) -> list[str]:
    """Each change in words, as `threads (4, now 2)`.

    Args:
        began: the versions in the run's configuration.
        now: those of `bnn.training.directory.versions`.
    """
    kept = began if isinstance(began, dict) else {}
    return [
        f"{word} ({str(kept.get(name, 'unknown'))[:40]}, now {now[name]})"
        for name, word in _WORDS.items()
        if kept.get(name) != now[name]
    ]


def noting_changes(configuration: Mapping[str, Any], run: Path, *, step: int, allowed: bool) -> dict[str, Any]:
    """A run's configuration, with what it began with noted in it where that has changed.

    Args:
        configuration: as the directory has it.
        run: the directory.
        step: that the run goes on from; from 0 on nothing has changed.
        allowed: whether a change is.

    Raises:
        RunError: there is one that is not.
    """
    began = configuration.get("versions")
    changed = changes(began, versions()) if step else []
    if not changed:
        return dict(configuration)
    if not allowed:
        raise RunError(
            f"{run} was trained with other {', '.join(changed)}, and would not end in the same bits: go on as before,"
            " or all the same with --allow-changes"
        )
    earlier = configuration.get("earlier_versions")
    note = {"until_step": step, "versions": began}
    return {**configuration, "earlier_versions": [*(earlier if isinstance(earlier, list) else []), note]}


def threads_of(configuration: Mapping[str, Any]) -> int | None:
    """The number of threads that a run's configuration has; None where it has none."""
    kept = configuration.get("versions")
    text = kept.get("threads") if isinstance(kept, dict) else None
    if not isinstance(text, str) or not re.fullmatch("[1-9][0-9]{0,3}", text):
        return None
    return int(text)


def check_data(began: Any, now: Mapping[str, Any], run: Path) -> None:
    """Refuses other data than those that a run began with.

    Args:
        began: the description in the run's configuration.
        now: of the data that there are, see `bnn.data.Dataset.described`.
        run: the directory.

    Raises:
        RunError: they differ.
    """
    for name in ("name", "image_shape", "classes", "train_images"):
        if isinstance(began, dict) and began.get(name) != now[name]:
            raise RunError(
                f"the data are not those that {run} began with: their {name.replace('_', ' ')} is {now[name]}"
                f" and was {began.get(name)}"
            )
