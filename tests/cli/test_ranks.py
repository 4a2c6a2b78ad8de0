"""Folders of ranks that have been killed."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bnn.cli.ranks import own_directory, remove_abandoned_directories

_KILLED = """
import os, signal
from pathlib import Path
from bnn.cli.ranks import own_directory
with own_directory(Path("run")):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_rank_removes_what_a_killed_one_has_left_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    subprocess.run([sys.executable, "-c", _KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.iterdir()
    other = tmp_path / "bnn-rank-notes"
    other.mkdir()
    remove_abandoned_directories()
    assert left.exists()  # it might have just begun
    hour_ago = time.time() - 3600
    with own_directory(Path("run")) as held:
        for folder in (left, other, held.parent):
            os.utime(folder, (hour_ago, hour_ago))
        with own_directory(Path("another")):
            assert not left.exists()
        assert held.parent.exists()
        assert other.exists()
    assert list(tmp_path.iterdir()) == [other]
