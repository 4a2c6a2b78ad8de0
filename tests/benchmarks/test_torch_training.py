from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.contestants import ours, plain_torch
from benchmarks.contestants.measure import Task
from benchmarks.contestants.plain_torch import PlainTorch
from benchmarks.contestants.torch_training import run, synthetic_batch

TASK = Task("mlp", (1, 4, 4), classes=3, batch=5, warmup=0, steps=2, threads=1)


def test_figures_are_of_the_task_and_not_of_its_rehearsal():
    built = []

    def build(task):
        model = nn.Sequential(nn.Flatten(), nn.Linear(task.input_shape[1] * task.input_shape[2], task.classes))
        built.append(task)
        return PlainTorch(model, torch.optim.SGD(model.parameters()), [])

    figures = run(replace(TASK, model="binarynet"), build)
    assert [(of.model, of.batch) for of in built] == [("mlp", 2), ("binarynet", 5)]
    assert figures.parameters == 16 * 3 + 3
    assert len(figures.step_s) == 2
    assert figures.peak_above_start_bytes <= figures.peak_bytes


@pytest.mark.parametrize("preset", ["standard", "edge-min"])
def test_our_step_is_the_trainer_s(preset):
    contestant = ours.build(preset, TASK)
    batch = synthetic_batch(replace(TASK, batch=40))
    losses = [contestant.take_step(*batch) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert contestant.model is contestant.step.model


def test_ours_saves_less_than_plain_torch():
    batch = synthetic_batch(TASK)
    saved = [build(TASK).saved_bytes(*batch) for build in (lambda task: ours.build("edge", task), plain_torch.build)]
    assert 0 < saved[0] < saved[1] / 2
