import time

import pytest
import torch

from benchmarks.contestants.measure import Task
from benchmarks.profile_step import operation_times_s


def test_operations_are_those_of_the_preset_and_lie_within_the_step(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    begin = time.perf_counter()
    step_s, times = operation_times_s(Task("mlp", (1, 4, 4), 3, 6, 1, 2, 1, mode="edge-min"))
    assert 0 < step_s < time.perf_counter() - begin
    assert times["bnn::norm_gradient_integers"] > 0
    assert times["bnn::adam_by_rows"] > 0
    assert sum(times.values()) == pytest.approx(step_s, rel=0.5)
