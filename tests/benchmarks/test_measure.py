import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contestants import measure
from benchmarks.contestants.measure import Task, step_times_s

ROOT = Path(__file__).parents[2]
MIB = 2**20

# Touches 96 MiB and gives them back before the meter is made, then touches 64 MiB and gives them back.
TOUCHING = """
import json
from benchmarks.contestants.measure import PeakMemory
before = bytearray(96 * 2**20)
before[:: 4096] = bytes(len(before) // 4096)
del before
memory = PeakMemory()
touched = bytearray(64 * 2**20)
touched[:: 4096] = bytes(len(touched) // 4096)
del touched
print(json.dumps([memory.start_bytes, memory.peak_bytes(), memory.is_of_whole_process]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no present level to start from")
def test_peak_of_a_process_that_touches_a_known_amount():
    done = subprocess.run([sys.executable, "-c", TOUCHING], cwd=ROOT, capture_output=True, text=True, check=True)
    start, peak, is_of_whole_process = json.loads(done.stdout)
    touched = (96 if is_of_whole_process else 64) * MIB
    # Linux keeps its counts of resident pages in batches, so that they are right to some pages only.
    assert abs(peak - start - touched) < 2 * MIB


def test_a_peak_that_cannot_be_reset_is_said_to_be_of_the_whole_process(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert measure.PeakMemory().is_of_whole_process


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a peak cannot be forgotten")
def test_a_restart_forgets_the_peak():
    restarted = TOUCHING.replace("print", "memory.restart()\nprint")
    done = subprocess.run([sys.executable, "-c", restarted], cwd=ROOT, capture_output=True, text=True, check=True)
    start, peak, is_of_whole_process = json.loads(done.stdout)
    assert is_of_whole_process or abs(peak - start) < 2 * MIB


def test_memory_without_a_proc_file_system(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "_STATUS", tmp_path / "missing")
    memory = measure.PeakMemory()
    assert 0 < memory.start_bytes <= memory.peak_bytes() < 2**45


def test_warm_up_is_not_timed(monkeypatch):
    calls = itertools.count()
    clock = iter([1.0, 1.5, 7.0, 9.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    between = []
    times_s, last_loss = step_times_s(
        lambda: float(next(calls)), warmup=3, steps=2, before_timing=lambda: between.append(next(calls))
    )
    assert times_s == [0.5, 2.0]
    assert between == [3]
    assert last_loss == 5


def test_a_task_survives_the_command_line():
    task = Task(
        "mlp", (1, 2, 3), classes=4, batch=5, warmup=6, steps=7, threads=8, mode="edge", weights="recu", inference=True
    )
    assert Task.from_json(task.to_json()) == task
