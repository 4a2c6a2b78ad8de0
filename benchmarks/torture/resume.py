"""Interruptions at every kind of moment, of every preset and optimizer: a run that goes on ends in the same bits."""

import signal
from pathlib import Path
from random import Random

import torch

from benchmarks.torture.runs import RUNS, devices, difference, results, whole
from benchmarks.torture.trials import Kind, require
from bnn.errors import Interrupted
from bnn.training import Trainer
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, SignalAt

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST = STEPS_AN_EPOCH


def _moments(chance: Random) -> list[tuple[str, int, int]]:
    """One to four moments in the order of a training."""
    epochs = sorted(chance.randrange(EPOCHS) for _ in range(chance.randint(1, 4)))
    moments = [(epoch, *_within(chance)) for epoch in epochs]
    if chance.random() < 0.2:
        moments.append((EPOCHS, 0, "in evaluation"))  # the test
    return [(event, epoch, batch) for epoch, batch, event in sorted(moments)]


def _within(chance: Random) -> tuple[int, str]:
    match chance.randrange(5):
        case 0:
            return 0, "epoch begins"
        case 1:
            return chance.randrange(_LAST), "in training"
        case 2:
            return 1 + chance.randrange(_LAST), "step ends"
        case 3:
            return _LAST, "in evaluation"
    return _LAST, "epoch ends"


def trial(chance: Random, folder: Path) -> None:
    """Interrupts a run by signals at some moments, each time in what could be another process."""
    name, device = chance.choice(list(RUNS)), chance.choice(devices())
    expected, out = whole(name, device), folder / "run"
    begun = False
    for moment in _moments(chance):
        trainer = Trainer(RUNS[name](), out, device=device, callbacks=[SignalAt(moment, chance.choice(SIGNALS))])
        torch.manual_seed(chance.randrange(2**31))
        try:
            trainer.resume() if begun else trainer.fit()
        except Interrupted:
            begun = True
        else:
            # The moment had passed before the run went on.
            require((out / "summary.json").exists(), f"{name}: a training ended without a summary")
            break
    else:
        Trainer(RUNS[name](), out, device=device).resume()
    differs = difference(results(out), expected)
    require(not differs, f"{name} on {device}: the run that went on differs in {differs}")


KINDS = (
    Kind(
        "resume",
        "runs of every preset, optimizer and device interrupted one to five times, at every kind of moment",
        trial,
        short=5,
        long=500,
    ),
)
