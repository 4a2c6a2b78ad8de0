"""The figures of `WeightMeter`, against weights that are moved by hand and against dense counting."""

import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnn.cost.meters import weights
from bnn.cost.meters.weights import WeightMeter
from bnn.errors import Interrupted
from bnn.layers import BinaryLinear
from bnn.models import mlp
from bnn.optim import DST, SGD
from bnn.presets import prepare
from bnn.quantizers import ReCU, ScaledSign, Sign, Ternary
from bnn.training import Callback, Run, Trainer
from bnn.training.directory import read_json, read_metrics
from bnn.weights import AccumulatorStore, DiscreteStore, LatentStore
from tests.contracts import dense
from tests.training.tiny_runs import EPOCHS, RUNS, STEPS_AN_EPOCH, SignalAt, tiny_dataset

FIGURES = {"never_flipped", "flip_rate", "reflip_rate", "sign_entropy", "quantization_error"}


class ByHand:
    """A network of one layer whose weights are set by hand, a row of values each step."""

    def __init__(self, start: list[float], quantizer=None) -> None:
        self.layer = BinaryLinear(len(start), 1, store=lambda shape: LatentStore(shape, quantizer=quantizer))
        self.trainer = SimpleNamespace(run=SimpleNamespace(model=nn.Sequential(self.layer)))
        self.set(start)
        self.meter = WeightMeter()
        self.meter.on_fit_begin(self.trainer)

    def set(self, values: list[float]) -> None:
        with torch.no_grad():
            self.layer.store.weight.copy_(torch.tensor([values]))

    def step(self, *rows: list[float]) -> None:
        for values in rows:
            self.set(values)
            self.meter.on_step_end(self.trainer, 0.0)

    def epoch(self) -> dict:
        record: dict = {"epoch": 0}
        self.meter.on_epoch_end(self.trainer, record)
        return record

    def summary(self) -> dict:
        summary: dict = {}
        self.meter.on_fit_end(self.trainer, summary)
        return summary["weight_state"]["0"]


@pytest.mark.parametrize("counted_bytes", [1, 3, 1 << 18])
def test_flips_by_hand(counted_bytes, monkeypatch):
    monkeypatch.setattr(weights, "_COUNTED_BYTES", counted_bytes)
    net = ByHand([1, 1, 1, -1])
    net.step([1, -1, 1, -1], [1, 1, -1, -1])  # flips of the 2nd; of the 2nd again and the 3rd
    record = net.epoch()
    assert record["never_flipped"] == 0.5
    assert record["flip_rate"] == 3 / (2 * 4)
    assert record["reflip_rate"] == 1 / (2 * 4)
    net.step([1, 1, -1, 1])  # the 4th, in an epoch of one step
    record = net.epoch()
    assert record["never_flipped"] == 0.25
    assert (record["flip_rate"], record["reflip_rate"]) == (1 / 4, 0)
    assert net.summary()["flip_rate"] == 4 / (3 * 4)
    assert net.summary()["reflip_rate"] == 1 / (3 * 4)


def test_a_zero_is_a_sign_of_its_own():
    net = ByHand([1, 0, -1, 0.2], Ternary(threshold=0.5))
    assert net.epoch()["sparsity"] == 0.5
    net.step([0, 0, 1, 0.3])  # + to 0, and - to +
    record = net.epoch()
    assert record["flip_rate"] == record["never_flipped"] == 0.5
    assert record["sparsity"] == 0.75
    assert record["sign_entropy"] == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    net.step([0, -1, 1, 0.3])  # 0 to -
    assert net.epoch()["flip_rate"] == 0.25


def test_binary_and_ternary_layers_side_by_side():
    layers = [BinaryLinear(2, 2, store=DiscreteStore), BinaryLinear(9, 1), BinaryLinear(2, 1, store=DiscreteStore)]
    trainer = SimpleNamespace(run=SimpleNamespace(model=nn.Sequential(*layers)))
    with torch.no_grad():
        layers[1].store.weight.fill_(1)
    meter = WeightMeter()
    meter.on_fit_begin(trainer)
    with torch.no_grad():
        layers[1].store.weight[0, 8] = -1
    meter.on_step_end(trainer, 0.0)
    summary: dict = {}
    meter.on_fit_end(trainer, summary)
    state = summary["weight_state"]
    assert list(state) == ["0", "1", "2"]
    assert [figures["flip_rate"] for figures in state.values()] == [0, 1 / 9, 0]
    assert [1 - figures["never_flipped"] for figures in state.values()] == pytest.approx([0, 1 / 9, 0])
    assert ["sparsity" in figures for figures in state.values()] == [True, False, True]


@pytest.mark.parametrize(("ones", "bits"), [(4, 1.0), (0, 0.0), (8, 0.0), (1, 0.5435644431995964)])
def test_balanced_signs_have_an_entropy_of_one_bit(ones, bits):
    net = ByHand([1.0] * ones + [-1.0] * (8 - ones))
    assert net.epoch()["sign_entropy"] == pytest.approx(bits, abs=1e-12)
    assert "sparsity" not in net.epoch()


def quantiles_of(draw, n: int = 100_000) -> torch.Tensor:
    return draw((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()


NORMAL = quantiles_of(torch.special.ndtri)
LAPLACE = quantiles_of(lambda u: (0.5 - u).sign() * torch.log(1 - 2 * (u - 0.5).abs()))


@pytest.mark.parametrize(
    ("values", "quantizer", "error"),
    [
        (NORMAL, Sign(), 1 - 2 / math.pi),
        (7 * NORMAL, ScaledSign(), 1 - 2 / math.pi),
        (LAPLACE, Sign(), 0.5),
        (torch.tensor([1.0, -1.0, 1.0]), Sign(), 0.0),
        (torch.tensor([1.0, 0.1, -2.0]), Ternary(threshold=0.5), 1 - 9 / 2 / 5.01),
        (torch.zeros(4), Sign(), 0.0),
    ],
)
def test_quantization_error(values, quantizer, error):
    assert ByHand(values.tolist(), quantizer).epoch()["quantization_error"] == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize(("tau", "share"), [(0.85, 0.337), (0.9, 0.199), (0.95, 0.066), (0.99, 0.0018)])
def test_share_that_recu_clips_of_normal_weights(tau, share):
    """The Laplace estimate of the quantile clips more or less of a normal distribution than 2 - 2 tau."""
    net = ByHand(NORMAL.tolist(), ReCU(tau=tau))
    assert net.epoch()["clipped_share"] == pytest.approx(share, abs=0.002)
    laplace = ByHand(LAPLACE.tolist(), ReCU(tau=tau))
    assert laplace.epoch()["clipped_share"] == pytest.approx(2 - 2 * tau, abs=0.002)
    # Of the clamped weight, with p = 2 - 2 tau and its best factor 1 - p: 1 - b^2 (1 - p)^2 / E w^2.
    p = 2 - 2 * tau
    clamped = 2 - 2 * p + 2 * p * math.log(p)
    assert laplace.epoch()["quantization_error"] == pytest.approx(1 - (1 - p) ** 2 / clamped, abs=0.003)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_what_recu_clips_of_accumulators_is_figured_in_float32(dtype):
    store = AccumulatorStore((1, len(NORMAL)), dtype=dtype, gain=0.3 * math.sqrt(len(NORMAL)), quantizer=ReCU(tau=0.9))
    store.initialize(torch.Generator().manual_seed(0))
    meter, record = WeightMeter(), {}
    trainer = SimpleNamespace(run=SimpleNamespace(model=nn.Sequential(store)))
    meter.on_fit_begin(trainer)
    meter.on_epoch_end(trainer, record)
    assert record["clipped_share"] == pytest.approx(0.199, abs=0.01)
    assert record["quantization_error"] == pytest.approx(error_of_clamped(store.trained_value().double()), abs=1e-4)


def error_of_clamped(w: torch.Tensor) -> float:
    """Of the clamped weight and its signs, under the best factor, mean |w|."""
    clamped = ReCU(tau=0.9).clamped(w)
    return 1 - (clamped.abs().mean().square() / clamped.square().mean()).item()


class Dense(Callback):
    """Counts flips of dense levels, as the definition says."""

    def __init__(self) -> None:
        self.records: list[dict] = []

    def levels(self, trainer):
        with torch.no_grad():
            return torch.cat([dense(s.store.read()).sign().flatten() for s in trainer.run.model.modules() if _is(s)])

    def on_fit_begin(self, trainer):
        self.before = self.levels(trainer)
        self.ever = torch.zeros_like(self.before, dtype=torch.bool)
        self.flips = self.reflips = 0

    def on_step_end(self, trainer, loss):
        now = self.levels(trainer)
        changed = now != self.before
        self.flips, self.reflips = self.flips + int(changed.sum()), self.reflips + int((changed & self.ever).sum())
        self.ever, self.before = self.ever | changed, now

    def on_epoch_end(self, trainer, record):
        chances = STEPS_AN_EPOCH * len(self.before)
        self.records.append(
            {
                "never_flipped": 1 - self.ever.double().mean().item(),
                "flip_rate": self.flips / chances,
                "reflip_rate": self.reflips / chances,
            }
        )
        self.flips = self.reflips = 0


def _is(module) -> bool:
    return isinstance(module, BinaryLinear)


def store_run(store, optimizer, **options) -> Run:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        BinaryLinear(36, 7, store=store, input_quantizer=None),
        nn.BatchNorm1d(7),
        BinaryLinear(7, 4, store=store),
        nn.BatchNorm1d(4),
    )
    return Run(
        model=model,
        data=tiny_dataset(),
        optimizer=optimizer(model.parameters()),
        epochs=EPOCHS,
        batch_size=12,
        seed=3,
        validation=0.2,
        **options,
    )


STORES = {
    "latent": (LatentStore, lambda p: torch.optim.SGD(p, lr=0.5)),
    "recu": (lambda shape: LatentStore(shape, quantizer=ReCU()), lambda p: torch.optim.SGD(p, lr=0.5)),
    "accumulator": (AccumulatorStore, lambda p: SGD(p, lr=2.0)),
    "recu accumulator": (
        lambda shape: AccumulatorStore(shape, quantizer=ReCU(tail="project")),
        lambda p: SGD(p, lr=2.0),
    ),
    "states": (DiscreteStore, lambda p: DST(SGD(p, lr=0.5))),
}


@pytest.mark.parametrize("kind", STORES)
def test_agrees_with_dense_counting_for_every_store(kind, tmp_path):
    counted = Dense()
    run = store_run(*STORES[kind], callbacks=[counted, WeightMeter()])
    summary = Trainer(run, tmp_path / "run").fit()
    records = read_metrics(tmp_path / "run")
    assert any(record["reflip_rate"] > 0 for record in records)
    for record, expected in zip(records, counted.records, strict=True):
        assert {name: record[name] for name in expected} == pytest.approx(expected)
    assert set(summary["weight_state"]) == {"1", "3"}
    known = {"recu": {"clipped_share"}, "recu accumulator": {"clipped_share"}, "states": {"sparsity"}}.get(kind, set())
    missing = {"quantization_error"} if kind == "states" else set()
    for figures in summary["weight_state"].values():
        assert set(figures) == (FIGURES | known) - missing
        assert all(0 <= value <= 2 for value in figures.values())
    last = records[-1]
    weighted = (
        252 * summary["weight_state"]["1"]["sign_entropy"] + 28 * summary["weight_state"]["3"]["sign_entropy"]
    ) / 280
    assert last["sign_entropy"] == pytest.approx(weighted)
    assert read_json(tmp_path / "run" / "summary.json")["weight_state"] == summary["weight_state"]


@pytest.mark.parametrize("kind", [*RUNS, *STORES])
@pytest.mark.parametrize("moment", [("step ends", 1, 2), ("epoch ends", 0, 4)])
def test_an_interrupted_run_ends_with_the_same_figures(kind, moment, tmp_path):
    def run() -> Run:
        made = RUNS[kind]() if kind in RUNS else store_run(*STORES[kind])
        made.callbacks = [*made.callbacks, WeightMeter()]
        return made

    whole = Trainer(run(), tmp_path / "whole").fit()["weight_state"]
    with pytest.raises(Interrupted):
        Trainer(run(), tmp_path / "parts", callbacks=[SignalAt(moment)]).fit()
    assert Trainer(run(), tmp_path / "parts").resume()["weight_state"] == whole
    names = {"never_flipped", "flip_rate", "reflip_rate", "sign_entropy"}
    figures = [
        [{name: record[name] for name in names} for record in read_metrics(tmp_path / part)]
        for part in ("whole", "parts")
    ]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_works_with_the_presets_of_little_memory(preset, tmp_path):
    step = prepare(preset, partial(mlp, input_shape=(1, 6, 6), classes=4, hidden=(16,)), input_shape=(1, 6, 6), seed=0)
    run = Run(**vars(step), data=tiny_dataset(), epochs=1, batch_size=12, seed=0, callbacks=[WeightMeter()])
    state = Trainer(run, tmp_path / "run").fit()["weight_state"]
    assert all(set(figures) == FIGURES for figures in state.values())
    assert sum(figures["flip_rate"] for figures in state.values()) > 0


def test_without_stores_it_adds_nothing(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    run = Run(
        model=model,
        data=tiny_dataset(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=1,
        batch_size=12,
        seed=0,
        callbacks=[WeightMeter()],
    )
    assert Trainer(run, tmp_path / "run").fit()["weight_state"] == {}
    assert "flip_rate" not in read_metrics(tmp_path / "run")[0]


def test_a_checkpoint_keeps_one_bit_a_weight():
    net = ByHand([1.0] * 8000)
    assert len(json.dumps(net.meter.state())) < 8000 / 8 * 4 / 3 + 200
