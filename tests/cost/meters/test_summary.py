"""What the meters add to a run's summary."""

from functools import partial

import pytest
import torch
from torch import nn

import bnn.cost.meters.summary
from bnn.cost import storage
from bnn.cost.energy import HOROWITZ_45NM, PRICE_TABLES, PriceTable, count_step
from bnn.cost.meters import EnergyMeter, MemoryMeter, StorageMeter
from bnn.cost.meters.summary import ExchangeMeter, read_ledger
from bnn.distributed.votes import Count
from bnn.errors import Interrupted, RunError
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import Callback, Run, Trainer
from bnn.weights import is_accumulator
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, SignalAt, sgd_run, tiny_dataset

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
    step = count_step(run.model, run.optimizer, (1, 6, 6), batch_size=12)
    steps = EPOCHS * STEPS_AN_EPOCH
    assert summary["energy_j"] == pytest.approx(steps * step.energy_J(HOROWITZ_45NM), rel=1e-12)
    assert summary["price_table"] == HOROWITZ_45NM.name
    for table in PRICE_TABLES:
        assert summary["energy_by_table_j"][table.name] == pytest.approx(steps * step.energy_J(table), rel=1e-12)
    assert summary["uncounted"] == []
    assert read_ledger(tmp_path / "run") == step.scaled(steps)


def test_slices_and_updates_inside_backward_are_told_from_the_run(tmp_path):
    whole = edge_run(preset="edge")
    Trainer(whole, tmp_path / "whole", callbacks=[EnergyMeter()]).fit()
    counted = count_step(whole.model, whole.optimizer, (1, 6, 6), batch_size=12)
    assert read_ledger(tmp_path / "whole") == counted.scaled(STEPS_AN_EPOCH)

    sliced = edge_run(preset="edge-min")
    sliced.slice_size = 4
    Trainer(sliced, tmp_path / "sliced", callbacks=[EnergyMeter()]).fit()
    in_backward = {parameter: 3 for parameter in sliced.model.parameters() if is_accumulator(parameter)}
    counted = count_step(sliced.model, sliced.optimizer, (1, 6, 6), batch_size=12, slices=3, updates=in_backward)
    assert read_ledger(tmp_path / "sliced") == counted.scaled(STEPS_AN_EPOCH)


def edge_run(*, preset: str) -> Run:
    network = partial(mlp, input_shape=(1, 6, 6), classes=4, hidden=(16,))
    step = prepare(preset, network, input_shape=(1, 6, 6))
    return Run(
        **{**vars(step), "slice_size": None}, data=tiny_dataset(), epochs=1, batch_size=12, seed=3, validation=0.2
    )


def test_unknown_modules_are_named(tmp_path):
    run = sgd_run(epochs=1)
    run.model = nn.Sequential(run.model, Odd("none"))
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    summary = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter()]).fit()
    assert summary["uncounted"] == ["1 (Odd)"]
    assert summary["energy_j"] > 0


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"steps": 2, "step": 7}',
        '{"steps": "many", "step": []}',
        '{"steps": 2, "step": [["read", [8], "a", "forward", null]]}',
    ],
)
def test_damaged_counts_are_one_line(tmp_path, content):
    assert read_ledger(tmp_path) is None
    (tmp_path / "ledger.json").write_text(content)
    with pytest.raises(RunError, match=r"ledger\.json"):
        read_ledger(tmp_path)


def test_skipped_steps_take_no_energy_and_the_table_can_be_another(tmp_path):
    table = PriceTable(name="one", source="", caveat="", price_J=lambda event: event.op == "multiply-accumulate")
    run = sgd_run(epochs=1)
    plain, calls = run.loss, []

    def loss(logits, labels):
        calls.append(1)
        return plain(logits, labels) * (float("nan") if len(calls) == 2 else 1)

    run.loss = loss
    summary = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter(prices=[table])]).fit()
    # Forward and the gradient of the weight everywhere, the gradient of the input but for the first layer.
    assert summary["energy_j"] == (STEPS_AN_EPOCH - 1) * 12 * (2 * 36 * 16 + 3 * 16 * 4)
    assert summary["price_table"] == "one"


class Sending(Callback):
    """As many bytes sent in each step as its number says."""

    def on_step_end(self, trainer, loss):
        trainer.run.exchange.ranks.sent_bytes += trainer.step


@pytest.mark.parametrize("moment", [("step ends", 0, 3), ("step ends", 1, 2), ("in evaluation", EPOCHS, 0)])
def test_what_ranks_have_sent_before_an_interruption_counts(tmp_path, moment):
    def trainer(*callbacks):
        run = sgd_run()
        run.exchange = Count()
        return Trainer(run, tmp_path / "run", callbacks=[Sending(), ExchangeMeter(), *callbacks])

    with pytest.raises(Interrupted):
        trainer(SignalAt(moment)).fit()
    steps = EPOCHS * STEPS_AN_EPOCH
    assert trainer().resume()["sent_bytes_a_step"] == round((steps + 1) / 2)


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
    assert read_ledger(tmp_path / "run") is None


def test_peak_memory_of_an_interrupted_run_is_that_of_its_largest_part(tmp_path, monkeypatch):
    peaks = {"first": 900.0, "second": 300.0}
    part = "first"
    monkeypatch.setattr(bnn.cost.meters.summary, "peak_rss_bytes", lambda: int(peaks[part] * MIB))
    with pytest.raises(Interrupted):
        Trainer(sgd_run(), tmp_path / "run", callbacks=[MemoryMeter(), SignalAt(("step ends", 1, 2))]).fit()
    part = "second"
    summary = Trainer(sgd_run(), tmp_path / "run", callbacks=[MemoryMeter()]).resume()
    assert summary["peak_rss_mib"] == 900.0
    assert "peak_device_mib" not in summary
