"""What a snapshot must bring back, and what it must refuse without changing anything."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnn.errors import CheckpointError
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import (
    Snapshot,
    capture,
    module_tensors,
    optimizer_tensors,
    restore,
    restore_module,
    restore_optimizer,
)


class LowBitMomentum(torch.optim.Optimizer):
    """Momentum in int8 with a bfloat16 scale, and a count that is no tensor."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter, dtype=torch.int8)
                    state["scale"] = torch.ones((), dtype=torch.bfloat16)
                    state["updates"] = 0
                momentum = 0.9 * state["momentum"].float() * state["scale"].float() + parameter.grad
                state["scale"] = (momentum.abs().max() / 127).bfloat16()
                state["momentum"] = (momentum / state["scale"].float()).round().clamp(-127, 127).to(torch.int8)
                state["updates"] += 1
                parameter.sub_(momentum, alpha=group["lr"] / state["updates"] ** 0.5)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01, betas=(0.8, 0.99)),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, amsgrad=True),
    "low-bit": lambda params: LowBitMomentum(params, lr=0.01),
}


class Training:
    """A small model, its optimizer and the generator that its data comes from."""

    def __init__(self, kind: str = "adam", *, width: int = 8, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(4 * width, 5))
        self.model[0].to(memory_format=torch.channels_last)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        convolution, rest = (
            self.model[0].parameters(),
            [*self.model[1].parameters(), *self.model[3].parameters()],
        )
        self.optimizer = OPTIMIZERS[kind]([{"params": list(convolution)}, {"params": rest, "lr": 0.003}])
        self.generators = {"data": generator}

    def train(self, steps: int) -> list[float]:
        return [self._step() for _ in range(steps)]

    def _step(self) -> float:
        x = torch.randn(16, 3, 4, 4, generator=self.generators["data"])
        self.optimizer.zero_grad()
        loss = (self.model(x) - 1).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def capture(self, step: int = 0, **state: Any) -> Snapshot:
        return capture(step, self.model, self.optimizer, self.generators, state)

    def restore(self, snapshot: Snapshot) -> dict[str, Any]:
        return restore(snapshot, self.model, self.optimizer, self.generators)


def assert_same(left: Snapshot, right: Snapshot) -> None:
    assert left.state == right.state
    assert left.tensors.keys() == right.tensors.keys()
    for name, tensor in left.tensors.items():
        assert tensor.dtype == right.tensors[name].dtype, name
        assert torch.equal(tensor, right.tensors[name]), name


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_resumed_training_is_bit_identical(kind: str, tmp_path: Path) -> None:
    straight = Training(kind)
    straight.train(3)
    straight.optimizer.param_groups[1]["lr"] = 0.0005
    save(tmp_path, straight.capture(3, epoch=1, curve=[0.5, 0.25]))
    expected = straight.train(4)

    resumed = Training(kind, seed=1)
    resumed.train(2)
    assert resumed.restore(load(tmp_path)) == {"epoch": 1, "curve": [0.5, 0.25]}
    assert resumed.train(4) == expected
    assert_same(resumed.capture(7), straight.capture(7))


def test_resuming_before_the_first_step_clears_the_optimizer() -> None:
    fresh, used = Training("momentum"), Training("momentum")
    start = copy.deepcopy(fresh.capture())
    used.train(2)
    used.restore(start)
    assert not used.optimizer.state
    assert used.train(3) == fresh.train(3)


def test_low_bit_state_keeps_its_dtype_where_torch_casts_it() -> None:
    training, other, resumed = (Training("low-bit") for _ in range(3))
    training.train(2)

    other.optimizer.load_state_dict(copy.deepcopy(training.optimizer.state_dict()))
    cast = other.optimizer.state[other.model[0].weight]
    assert cast["momentum"].dtype == cast["scale"].dtype == torch.float32  # the trap

    restore_optimizer(resumed.optimizer, *optimizer_tensors(training.optimizer))
    kept = resumed.optimizer.state[resumed.model[0].weight]
    assert (kept["momentum"].dtype, kept["scale"].dtype) == (torch.int8, torch.bfloat16)
    assert kept["updates"] == 2


def test_restored_state_is_a_copy() -> None:
    training, resumed = Training(), Training()
    training.train(1)
    snapshot = training.capture()
    before = copy.deepcopy(snapshot)
    resumed.restore(snapshot)
    resumed.train(1)
    assert_same(snapshot, before)


def test_capture_copies_no_tensor_of_model_or_optimizer() -> None:
    training = Training()
    training.train(1)
    tensors = training.capture().tensors
    weight = training.model[0].weight
    assert tensors["model.0.weight"].data_ptr() == weight.data_ptr()
    assert tensors["optimizer.0.exp_avg"].data_ptr() == training.optimizer.state[weight]["exp_avg"].data_ptr()


def test_hyper_parameters_that_are_tuples_stay_tuples(tmp_path: Path) -> None:
    save(tmp_path, Training("adam").capture())
    resumed = Training("adam")
    resumed.optimizer.param_groups[0]["betas"] = (0.0, 0.0)
    resumed.restore(load(tmp_path))
    assert resumed.optimizer.param_groups[0]["betas"] == (0.8, 0.99)


def _drop(name: str) -> Callable[[Snapshot], Any]:
    return lambda snapshot: snapshot.tensors.pop(name)


def _put(name: str, tensor: Tensor) -> Callable[[Snapshot], Any]:
    return lambda snapshot: snapshot.tensors.update({name: tensor})


UNFIT: dict[str, tuple[Callable[[Snapshot], Any], str]] = {
    "missing weight": (_drop("model.0.weight"), r"lacks the model tensor '0\.weight'"),
    "missing buffer": (_drop("model.1.running_var"), r"lacks the model tensor '1\.running_var'"),
    "unexpected weight": (_put("model.9.weight", torch.ones(1)), r"unexpected model tensor '9\.weight'"),
    "shape": (_put("model.3.bias", torch.ones(6)), r"'3\.bias' is torch\.float32 \[6\]"),
    "dtype": (_put("model.3.bias", torch.ones(5).half()), r"'3\.bias' is torch\.float16 \[5\]"),
    "unexpected state": (
        _put("optimizer.6.exp_avg", torch.ones(1)),
        r"unexpected optimizer tensor '6\.exp_avg'",
    ),
    "no state": (lambda snapshot: snapshot.state.pop("optimizer"), "does not hold a training state"),
    "cut groups": (lambda snapshot: snapshot.state["optimizer"]["groups"].pop(), "incomplete"),
    "cut values": (lambda snapshot: snapshot.state["optimizer"]["values"].pop(), "incomplete"),
    "missing generator": (_drop("generator.data"), "lacks the random generator 'data'"),
    "unexpected generator": (_put("generator.x", torch.ones(1)), "unexpected random generator 'x'"),
    "short generator": (
        _put("generator.data", torch.ones(9, dtype=torch.uint8)),
        "generator 'data' is not one of cpu",
    ),
    "wrong generator": (_put("generator.data", torch.ones(5056)), "generator 'data' is not one of cpu"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_and_changes_nothing(case: str) -> None:
    damage, message = UNFIT[case]
    saved, training = Training(seed=1), Training()
    saved.train(2)
    training.train(1)
    snapshot, before = copy.deepcopy(saved.capture()), copy.deepcopy(training.capture())
    damage(snapshot)
    with pytest.raises(CheckpointError, match=message):
        training.restore(snapshot)
    assert_same(training.capture(), before)


def test_state_of_another_optimizer_or_model_is_refused() -> None:
    adam = Training("adam")
    with pytest.raises(CheckpointError, match="its class is SGD, here it is Adam"):
        adam.restore(Training("momentum").capture())
    tensors, state = optimizer_tensors(Training("adam", width=4).optimizer)
    with pytest.raises(CheckpointError, match=r"parameter 0 of group 0 is \[4, 3, 3, 3\], here it is \[8, 3, 3, 3\]"):
        restore_optimizer(adam.optimizer, tensors, state)
    fewer = torch.optim.Adam(adam.model[0].parameters())
    with pytest.raises(CheckpointError, match=r"parameter 0 of group 1 is .*, here it is None"):
        restore_optimizer(fewer, *optimizer_tensors(adam.optimizer))


def test_another_model_is_named_as_such() -> None:
    with pytest.raises(CheckpointError, match=r"another model: its '0\.weight' is torch\.float32 \[4, 3, 3, 3\]"):
        Training().restore(Training(width=4).capture())


def test_state_of_no_parameter_is_refused_instead_of_lost() -> None:
    optimizer = Training("momentum").optimizer
    optimizer.state["calls"] = 3
    with pytest.raises(CheckpointError, match="SGD has state of no parameter"):
        optimizer_tensors(optimizer)


def test_a_module_alone_round_trips() -> None:
    source, target = Training(seed=3).model, Training(seed=4).model
    restore_module(target, module_tensors(source))
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
