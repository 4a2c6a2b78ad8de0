"""What the meters add to a run's summary."""

import pytest
import torch
from torch import nn

import bnn.accounting.meters
from bnn.accounting import (
    HOROWITZ_45NM,
    EnergyMeter,
    MemoryMeter,
    PriceTable,
    StorageMeter,
    count_step,
    storage,
)
from bnn.errors import Interrupted
from bnn.training import Trainer
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, SignalAt, sgd_run

MIB = 2**20


def test_storage(tmp_path):
    run = sgd_run(epochs=1)
    summary = Trainer(run, tmp_path / "run", callbacks=[StorageMeter()]).fit()
    stored = storage(run.model)
    assert (summary["weights"], summary["bits_per_weight"]) == (stored.weights, 1.0)
    assert summary["other_parameters"] == stored.other_parameters


def test_energy_is_that_of_the_steps_taken(tmp_path):
    run = sgd_run()
    trainer = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter()])
    summary = trainer.fit()
    step_J = count_step(run.model, run.optimizer, (1, 6, 6), batch_size=12).energy_J(HOROWITZ_45NM)
    assert summary["energy_j"] == pytest.approx(EPOCHS * STEPS_AN_EPOCH * step_J, rel=1e-12)
    assert summary["price_table"] == HOROWITZ_45NM.name


def test_skipped_steps_take_no_energy_and_the_table_can_be_another(tmp_path):
    table = PriceTable(name="one", source="", caveat="", price_J=lambda event: event.op == "multiply-accumulate")
    run = sgd_run(epochs=1)
    plain, calls = run.loss, []

    def loss(logits, labels):
        calls.append(1)
        return plain(logits, labels) * (float("nan") if len(calls) == 2 else 1)

    run.loss = loss
    summary = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter(prices=table)]).fit()
    # Forward and the gradient of the weight everywhere, the gradient of the input but for the first layer.
    assert summary["energy_j"] == (STEPS_AN_EPOCH - 1) * 12 * (2 * 36 * 16 + 3 * 16 * 4)
    assert summary["price_table"] == "one"


class Odd(nn.Module):
    """A layer that cannot be counted, each time for another reason."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.table = torch.ones(4)

    def forward(self, x, *, scale=1.0):
        match self.way:
            case "value":
                return x if x.sum().item() > -1e9 else -x
            case "numpy":
                return x + torch.from_numpy(x.detach().numpy() * 0)
            case "plain tensor":
                return x * self.table.sum()
            case "assertion":
                assert not x.is_meta
            case "index":
                return x * [1.0][int(x.is_meta)]
        return x * scale


@pytest.mark.parametrize("way", ["value", "numpy", "assertion", "index", "keyword"])
def test_model_that_cannot_run_on_shapes_has_no_energy_and_keeps_its_result(way, tmp_path):
    odd = Odd(way)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(36, 4)
            self.odd = odd

        def forward(self, x):
            y = self.linear(x.flatten(1))
            # A layer called by keyword has no positional input to look at.
            return self.odd(x=y) if way == "keyword" else self.odd(y)

    model = Model()
    run = sgd_run(epochs=1)
    run.model, run.optimizer = model, torch.optim.SGD(model.parameters(), lr=0.1)
    summary = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter()]).fit()
    assert summary["energy_j"] is None
    assert summary["price_table"] == HOROWITZ_45NM.name
    assert (tmp_path / "run" / "summary.json").exists()


def test_peak_memory_of_an_interrupted_run_is_that_of_its_largest_part(tmp_path, monkeypatch):
    peaks = {"first": 900.0, "second": 300.0}
    part = "first"
    monkeypatch.setattr(bnn.accounting.meters, "peak_rss_bytes", lambda: int(peaks[part] * MIB))
    with pytest.raises(Interrupted):
        Trainer(sgd_run(), tmp_path / "run", callbacks=[MemoryMeter(), SignalAt(("step ends", 1, 2))]).fit()
    part = "second"
    summary = Trainer(sgd_run(), tmp_path / "run", callbacks=[MemoryMeter()]).resume()
    assert summary["peak_rss_mib"] == 900.0
    assert "peak_device_mib" not in summary
