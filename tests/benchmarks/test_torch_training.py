from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.contestants import ours, plain_torch
from benchmarks.contestants.measure import Task
from benchmarks.contestants.plain_torch import PlainTorch
from benchmarks.contestants.torch_training import run, step_of, synthetic_batch
from bnn.quantizers import ReCU
from bnn.weights import is_accumulator

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
    contestant = ours.build(replace(TASK, mode=preset))
    batch = synthetic_batch(replace(TASK, batch=40))
    losses = [contestant.take_step(*batch) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert contestant.model is contestant.step.model


def test_ours_saves_less_than_plain_torch():
    batch = synthetic_batch(TASK)
    saved = [build(replace(TASK, mode="edge")).saved_bytes(*batch) for build in (ours.build, plain_torch.build)]
    assert 0 < saved[0] < saved[1] / 2


def test_inference_leaves_the_network_as_it_is():
    task = replace(TASK, inference=True)
    for build, mode in ((ours.build, "standard"), (plain_torch.build, "float32")):
        contestant = build(replace(task, mode=mode))
        before = {name: value.clone() for name, value in contestant.model.state_dict().items()}
        assert step_of(contestant, task)() is None
        assert not contestant.model.training
        after = contestant.model.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_inference_has_neither_loss_nor_saved_tensors():
    figures = run(replace(TASK, inference=True), plain_torch.build)
    assert (figures.last_loss, figures.saved_bytes, len(figures.step_s)) == (None, None, 2)


@pytest.mark.parametrize("mode", ["bfloat16-last-fused", "float32-last-fused"])
def test_modes_take_the_same_step_but_for_rounding(mode):
    task = replace(TASK, model="resnet8", input_shape=(3, 8, 8))
    batch = synthetic_batch(task)
    losses = []
    for words in ("float32", mode):
        torch.manual_seed(0)
        contestant = plain_torch.build(replace(task, mode=words))
        losses.append([contestant.take_step(*batch) for _ in range(2)])
    assert losses[1] == pytest.approx(losses[0], rel=0.1 if "bfloat16" in mode else 1e-3)
    (conv, *_) = [weight for weight in contestant.model.parameters() if weight.dim() == 4]
    assert conv.is_contiguous(memory_format=torch.channels_last)


def test_a_compiled_network_is_one_graph_of_fixed_shape(monkeypatch):
    asked = []

    def compile_(model, **options):
        asked.append(options)
        return model

    monkeypatch.setattr(torch, "compile", compile_)
    plain_torch.build(replace(TASK, mode="float32-compiled"))
    plain_torch.build(replace(TASK, mode="float32-last"))
    assert asked == [{"fullgraph": True, "dynamic": False}]


def test_recu_trains_unclipped_latents_behind_its_quantizer():
    task = replace(TASK, model="resnet8", input_shape=(3, 8, 8), weights="recu")
    assert not plain_torch.build(task).latents
    assert plain_torch.build(replace(task, weights="sign")).latents
    model = ours.build(replace(task, mode="standard")).model
    assert sum(isinstance(module, ReCU) for module in model.modules()) == 6
    stores = [module for module in ours.build(replace(task, mode="edge")).model.modules() if hasattr(module, "trained")]
    assert len(stores) == 6
    assert all(isinstance(store.quantizer, ReCU) and is_accumulator(store.trained) for store in stores)
