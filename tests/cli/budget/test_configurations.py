import pytest
import torch
from torch import nn

import bnn.optim
from bnn.cli.budget.configurations import (
    CONFIGURATIONS,
    OPTIMIZERS,
    PRESETS,
    TrainingConfiguration,
    check_configuration,
    load_libraries,
    step_on_cpu,
    step_on_meta,
)
from bnn.cli.budget.networks import NetworkBuilder, find_network
from bnn.cost.memory.predicted import predict_step
from bnn.errors import RunError, UsageError
from bnn.optim.base import LowBitOptimizer
from bnn.training import TrainingStep
from bnn.weights import Accumulator

PLAIN = TrainingConfiguration("standard", "adam", 6)


def step(preset: str, optimizer: str, **options):
    return step_on_meta(find_network("mlp", (1, 4, 4)), TrainingConfiguration(preset, optimizer, 10, **options))


def test_configurations_are_every_preset_with_every_optimizer_that_it_can_have():
    stepped_in_backward = [(preset, "adam") for preset in ("edge-min", "edge-fast", "edge-signs")]
    assert [*((p, o) for p in ("standard", "edge") for o in OPTIMIZERS), *stepped_in_backward] == CONFIGURATIONS


@pytest.mark.parametrize(("preset", "optimizer"), CONFIGURATIONS)
def test_every_parameter_is_stepped_once_and_has_state_of_the_preset_s_width(preset, optimizer):
    of = step(preset, optimizer)
    stepped = [id(p) for group in of.optimizer.param_groups for p in group["params"]]
    assert sorted(stepped) == sorted(id(parameter) for parameter in of.model.parameters())
    assert all(parameter.is_meta for parameter in of.model.parameters())
    if preset == "edge":
        assert all(part.state_dtype is torch.float16 for part in parts(of))


def parts(of) -> list[LowBitOptimizer]:
    """The optimizers that a step's optimizer consists of."""
    found = getattr(of.optimizer, "_parts", (of.optimizer,))
    assert all(isinstance(part, LowBitOptimizer) for part in found)
    return list(found)


def test_bop_steps_the_binary_weights_and_adam_the_rest():
    bop, adam = parts(step("edge", "bop"))
    assert isinstance(bop, bnn.optim.Bop)
    assert all(isinstance(parameter, Accumulator) for parameter in bop.param_groups[0]["params"])
    assert isinstance(adam, bnn.optim.Adam)
    assert not any(isinstance(parameter, Accumulator) for parameter in adam.param_groups[0]["params"])


@pytest.mark.parametrize("preset", ["standard", "edge"])
def test_sgd_has_momentum(preset):
    assert [group["momentum"] for group in step(preset, "sgd").optimizer.param_groups] == [0.9]


def test_bop_and_adam_take_a_step_together():
    of = step_on_cpu(find_network("mlp", (1, 4, 4)), TrainingConfiguration("standard", "bop", 10))
    before = [parameter.detach().clone() for parameter in of.model.parameters()]
    x = torch.randn((10, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    of.take(x, torch.arange(10) % 2)
    assert len(of.states()) > len(before)
    norms = [not torch.equal(*pair) for pair in zip(before, of.model.parameters(), strict=True) if pair[0].dim() == 1]
    assert norms
    assert all(norms)


def test_slices_are_the_preset_s_unless_they_are_given():
    assert step("edge", "adam").slice_size is None
    assert step("edge", "adam", slice_size=4).slice_size == 4
    assert step("edge-min", "adam").slice_size == 43 * 128 * 32 * 32 // 256


@pytest.mark.parametrize("preset", PRESETS)
def test_libraries_are_loaded_by_a_step_of_the_preset(preset, monkeypatch):
    changed = []
    take = TrainingStep.take

    def noted(step, x, labels):
        before = [parameter.detach().clone() for parameter in step.model.parameters()]
        take(step, x, labels)
        changed.append(any(not torch.equal(*pair) for pair in zip(before, step.model.parameters(), strict=True)))

    monkeypatch.setattr(TrainingStep, "take", noted)
    load_libraries(TrainingConfiguration(preset, "adam", 500))
    assert changed == [True]


def test_what_does_not_go_together():
    plain = NetworkBuilder("mine", lambda: torch.nn.Linear(4, 2), (4,))
    check_configuration("standard", "sgd")
    check_configuration(None, None)
    with pytest.raises(UsageError, match="leave out --optimizer bop"):
        check_configuration("edge-min", "bop")
    with pytest.raises(UsageError, match="bop steps binary weights"):
        step_on_meta(plain, TrainingConfiguration("standard", "bop", 10))


@pytest.mark.parametrize(
    ("logits", "what"),
    [(torch.ones(4, 2, 2), "[4, 2, 2]"), (torch.ones(3, 2), "[3, 2]"), ((1, 2), "tuple")],
)
def test_what_gives_no_logits_is_refused(logits, what):
    loss = step_on_meta(NetworkBuilder("mine", lambda: torch.nn.Linear(4, 2), (4,)), PLAIN).loss
    with pytest.raises(RunError) as caught:
        loss(logits, torch.zeros(4, dtype=torch.long))
    assert "must give logits [N, classes] of 4 examples" in str(caught.value)
    assert what in str(caught.value)


def test_a_network_without_logits_cannot_be_predicted():
    network = NetworkBuilder("mine", lambda: nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1))), (4,))
    with pytest.raises(RunError, match=r"must give logits \[N, classes\] of 6 examples, not \[6, 3, 1\]"):
        predict_step(step_on_meta(network, PLAIN), input_shape=(4,), batch_size=6)
