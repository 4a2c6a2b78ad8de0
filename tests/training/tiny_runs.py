"""Runs of a second, one of each kind of state that training can have, and callbacks that watch and interrupt them."""

import signal
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bnn.data import Dataset, RandomFlip, RandomShift, Split
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.methods import TauSchedule
from bnn.models import initialize, mlp
from bnn.quantizers import ReCU
from bnn.training import Callback, Run, Trainer, warmup_cosine
from bnn.weights import LatentStore

EPOCHS = 3
STEPS_AN_EPOCH = 4  # 48 training examples in batches of 12, 12 held out


def tiny_dataset(*, classes: int = 4, size: int = 6) -> Dataset:
    """Random images whose brightness tells their class."""
    generator = torch.Generator().manual_seed(5)

    def split(n: int) -> Split:
        labels = torch.arange(n) % classes
        noise = torch.randint(0, 100, (n, 1, size, size), generator=generator)
        return Split(images=(noise + 35 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels=labels)

    return Dataset(
        name="tiny",
        train=split(60),
        test=split(20),
        classes=tuple("abcdefgh"[:classes]),
        mean=(0.4,),
        std=(0.2,),
        source="drawn",
    )


class Noise(nn.Module):
    """Adds noise in training, from a generator of its own."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape, generator=self.generator) if self.training else x


def _finished(model: nn.Module, optimizer: Callable[..., torch.optim.Optimizer], **options) -> Run:
    initialize(model, generator=torch.Generator().manual_seed(1))
    return Run(
        model=model,
        data=tiny_dataset(),
        optimizer=optimizer(model.parameters()),
        batch_size=12,
        **{"validation": 0.2, "epochs": EPOCHS, "seed": 3, **options},
    )


def adam_run(**options) -> Run:
    """Adam, clipped latents, dropout (of torch's global generator) and a module with its own generator."""
    generator = torch.Generator().manual_seed(9)
    store = partial(LatentStore, limit=1.0)
    model = nn.Sequential(
        nn.Flatten(),
        Noise(generator),
        BinaryLinear(36, 16, input_quantizer=None, store=store),
        nn.BatchNorm1d(16),
        nn.Dropout(0.3),
        BinaryLinear(16, 4, store=store),
        nn.BatchNorm1d(4),
    )
    return _finished(
        model,
        lambda p: torch.optim.Adam(p, lr=0.01),
        **{"generators": {"noise": generator}, **options},
    )


def sgd_run(**options) -> Run:
    """SGD with momentum, warm-up and cosine, and augmentation."""
    return _finished(
        mlp(input_shape=(1, 6, 6), classes=4, hidden=(16,)),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
        **{
            "schedule": warmup_cosine(EPOCHS, warmup_epochs=1),
            "augment": [RandomShift(fraction=0.2), RandomFlip()],
            **options,
        },
    )


def recu_run(**options) -> Run:
    """ReCU, whose scale depends on a tau that moves with the epochs and whose latents are projected."""
    store = ReCU(scale="mean", tail="project")
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        BinaryConv2d(4, 6, 3, padding=1, store=lambda shape: LatentStore(shape, quantizer=store), learned_scale=True),
        nn.BatchNorm2d(6),
        nn.Hardtanh(),
        BinaryConv2d(6, 8, 3, stride=2, store=lambda shape: LatentStore(shape, quantizer=store)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    return _finished(
        model,
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        **{"callbacks": [TauSchedule()], **options},
    )


def sliced_run(**options) -> Run:
    """As `adam_run`, with batches that go through the network in three slices."""
    return adam_run(slice_size=5, **options)


def bfloat16_run(**options) -> Run:
    """As `recu_run`, with products of bfloat16."""
    return recu_run(precision="bfloat16", **options)


RUNS = {"adam": adam_run, "sgd": sgd_run, "recu": recu_run, "sliced": sliced_run, "bfloat16": bfloat16_run}


class Losses(Callback):
    """The loss of every step, by step."""

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        assert trainer.step not in self.by_step, "a step was done twice"
        self.by_step[trainer.step] = loss


class SignalAt(Callback):
    """Sends this process a signal once, at a moment: (event, epochs completed, batches done of the epoch)."""

    def __init__(self, moment: tuple[str, int, int], number: int = signal.SIGTERM) -> None:
        self.moment: tuple[str, int, int] | None = moment
        self.number = number

    def note(self, event: str, trainer: Trainer) -> None:
        if (event, trainer.epoch, trainer.batch) == self.moment:
            self.moment = None
            signal.raise_signal(self.number)

    def on_fit_begin(self, trainer: Trainer) -> None:
        self.note("fit begins", trainer)
        plain = trainer.run.loss

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            self.note("in training" if trainer.run.model.training else "in evaluation", trainer)
            return plain(logits, labels)

        trainer.run.loss = loss

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self.note("epoch begins", trainer)

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        self.note("step ends", trainer)

    def on_epoch_end(self, trainer: Trainer, record) -> None:
        self.note("epoch ends", trainer)


def training_state(run: Run) -> dict[str, Tensor]:
    """Copies of everything that a step may change: parameters, buffers and the optimizer's state."""
    state = {name: tensor.detach().clone() for name, tensor in run.model.state_dict().items()}
    for group in run.optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            for key, value in run.optimizer.state.get(parameter, {}).items():
                state[f"optimizer {index} {key}"] = torch.as_tensor(value).clone()
    return state


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), f"{name} differs"


def without_clock(record: dict) -> dict:
    return {name: value for name, value in record.items() if name != "wall_s"}
