"""What the meter adds up, against what the stores did."""

import pytest
import torch
from torch import nn

from bnn.layers import BinaryLinear
from bnn.models import initialize, mlp
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.quantizers import Ternary
from bnn.training import Run, Trainer
from bnn.training.directory import read_json
from bnn.weights import LatentStore
from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.meters import DeviceMeter
from hwsim.nonidealities import NonIdealities
from hwsim.store import READ_VOLTAGE_V, READ_WIDTH_S, DeviceStore
from hwsim.tiles import Tiles
from tests.training.tiny_runs import tiny_dataset

JUNCTION = junctions.consistent(model=Butler())


def run(*, threshold: float = 0.5, **nonidealities) -> Run:
    data = tiny_dataset()
    inputs = torch.Size(data.image_shape).numel()

    def store(shape) -> DeviceStore:
        return DeviceStore(shape, device=JUNCTION, nonidealities=NonIdealities(**nonidealities))

    model = nn.Sequential(
        nn.Flatten(),
        BinaryLinear(inputs, 12, store=store),
        nn.BatchNorm1d(12),
        BinaryLinear(12, data.num_classes, store=store, input_quantizer=Ternary(threshold=threshold)),
    )
    initialize(model, generator=torch.Generator().manual_seed(1))
    return Run(
        model=model,
        data=data,
        optimizer=DST(Adam(model.parameters(), lr=0.05)),
        epochs=2,
        batch_size=4,
        seed=0,
        callbacks=[DeviceMeter()],
    )


def test_figures_are_those_of_the_stores(tmp_path):
    training = run()
    figures = Trainer(training, tmp_path).fit()["junctions"]
    stores = [module for module in training.model.modules() if isinstance(module, DeviceStore)]
    assert figures == read_json(tmp_path / "summary.json")["junctions"]
    synapses = sum(store.size for store in stores)
    assert figures["synapses"] == synapses
    assert 2 <= figures["bits_per_synapse"] < 3, "rows are filled up to bytes"
    steps = stores[0].totals["writes"]
    assert figures["writes"] == steps > 0
    for name in ("pulses", "switches", "write_energy_J"):
        assert figures[name] == sum(store.totals[name] for store in stores) > 0
    assert figures["write_energy_per_pulse_J"] == figures["write_energy_J"] / figures["pulses"]
    assert figures["write_energy_per_update_J"] == figures["write_energy_J"] / (steps * synapses)
    # Every weight meets each of the four images of a step once, and is read before it is written.
    assert figures["reads"] == (4 + 1) * steps * synapses
    assert figures["transposed_reads"] == 0
    assert "max_switches_per_junction" not in figures
    assert figures["fraction_in_0_s"] == 0, "cells that are read first never come to it"


def test_transposed_reads_are_those_of_gradients_of_inputs(tmp_path):
    training = run()
    first, second = (module.store for module in training.model.modules() if hasattr(module, "store"))
    for store in (first, second):
        store.tiles = Tiles(adc_bits=6)
    figures = Trainer(training, tmp_path).fit()["junctions"]
    # Of the four images of a step; the first layer's input has no gradient.
    assert figures["transposed_reads"] == 4 * figures["writes"] * second.size


def test_share_of_the_zeros_of_two_parallel_junctions(tmp_path):
    training = run(stuck_parallel=0.5)
    share = Trainer(training, tmp_path).fit()["junctions"]["fraction_in_0_s"]
    states = torch.cat([m.antiparallel().flatten(1) for m in training.model.modules() if isinstance(m, DeviceStore)], 1)
    assert share == pytest.approx(float((states.sum(dim=0) == 0).double().mean()))
    assert share > 0.1


def test_inputs_of_0_take_no_energy(tmp_path):
    """Those of the second layer, if its threshold is out of reach; the first one's are real."""
    training = run(threshold=1e9)
    figures = Trainer(training, tmp_path).fit()["junctions"]
    stores = [module for module in training.model.modules() if isinstance(module, DeviceStore)]
    first, second = (
        store.size * float(store.conductances_S().sum(dim=0).mean()) * READ_VOLTAGE_V**2 * READ_WIDTH_S
        for store in stores
    )
    steps = figures["writes"]
    assert figures["read_energy_J"] == pytest.approx(steps * (4 * first + first + second), rel=0.02, abs=0)


def test_counted_switches(tmp_path):
    training = run(endurance_cycles=50)
    figures = Trainer(training, tmp_path).fit()["junctions"]
    assert 66 <= figures["bits_per_synapse"] < 68
    cycles = [module.cycles for module in training.model.modules() if isinstance(module, DeviceStore)]
    assert figures["max_switches_per_junction"] == max(int(counts.max()) for counts in cycles)
    assert sum(int(counts.sum()) for counts in cycles) == figures["switches"]


def test_a_network_without_junctions_has_no_figures(tmp_path):
    training = run()
    data = training.data
    model = mlp(input_shape=data.image_shape, classes=data.num_classes, store=LatentStore)
    optimizer = torch.optim.Adam(model.parameters())
    plain = Run(
        model=model, data=data, optimizer=optimizer, epochs=1, batch_size=4, seed=0, callbacks=[DeviceMeter()]
    )  # fmt: skip
    assert Trainer(plain, tmp_path).fit()["junctions"] is None


def test_the_meter_does_not_disturb_the_training(tmp_path):
    with_meter, without = run(), run()
    without.callbacks = []
    Trainer(with_meter, tmp_path / "with").fit()
    Trainer(without, tmp_path / "without").fit()
    state = without.model.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in with_meter.model.state_dict().items())
