"""Random argument lists: each ends with a result or with one line, and destroys nothing."""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from benchmarks.torture.trials import Kind, quiet, require, scratch
from tests.cli.argument_lists import argument_lists, furnish
from tests.cli.test_argument_lists import complaint

_ROOT = Path(__file__).parents[2]


@cache
def _furnished() -> Path:
    """A folder with what the lists name, not to be changed."""
    folder, here = Path(tempfile.mkdtemp(dir=scratch())), Path.cwd()
    os.environ |= {"BNN_CACHE": str(folder / "cache"), "PYTHONPATH": str(_ROOT)}  # of the processes of sweeps
    (folder / "place").mkdir()
    os.chdir(folder / "place")
    try:
        with quiet():
            furnish(folder / "place")
    finally:
        os.chdir(here)
    return folder / "place"


def trial(chance: Random, folder: Path) -> None:
    """One argument list, in a folder of its own."""
    place = Path(shutil.copytree(_furnished(), folder / "place"))
    os.chdir(place)
    (words,) = argument_lists(1, seed=chance.randrange(2**31))
    wrong = complaint(words, place)
    require(not wrong, f"{words.program} {' '.join(map(repr, words.words))}: {wrong}")


KINDS = (
    Kind(
        "arguments",
        "random argument lists of `bnn` and `hwsim`, valid and broken",
        trial,
        short=0,  # tests/cli/test_argument_lists.py has some
        long=2000,
        before=_furnished,
        limit_s=300,
    ),
)
