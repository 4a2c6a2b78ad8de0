"""What the recipe on simulated junctions promises beyond every recipe's promises."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from bnn.cli import main
from bnn.cost.memory.of_run import predict_run
from bnn.errors import Interrupted, RunError
from bnn.optim.dst import DST
from bnn.training import Run, Trainer
from bnn.training.directory import read_json
from bnn.training.recipe import load_recipe
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore
from hwsim.tiles import Tiles
from hwsim.write_schemes import LinearPulse, PreDistorted
from tests.recipes.small_data import write_mnist
from tests.training.tiny_runs import SignalAt, assert_same_state, training_state

RECIPES = Path(__file__).parents[2] / "recipes"


def test_swaps_the_store_and_nothing_else(tmp_path):
    write_mnist(tmp_path)
    ideal, device = (load_recipe(RECIPES / f"{name}.py")(data_dir=tmp_path, seed=3) for name in ("gxnor", "mtj"))
    assert isinstance(device.optimizer, DST)
    for one, other in zip(ideal.model, device.model, strict=True):
        if hasattr(one, "store"):
            assert isinstance(other.store, DeviceStore)
            assert other.store.scheme == PreDistorted(read_first=True)
            assert torch.equal(one.store.value(), other.store.value())
    assert device.optimizer.defaults == ideal.optimizer.defaults
    assert device.identity == ideal.identity


@pytest.mark.slow  # the tables of the Fokker-Planck equation, in every process
def test_a_report_says_in_plain_words_why_memory_is_not_predicted(tmp_path):
    write_mnist(tmp_path)
    run = load_recipe(RECIPES / "mtj.py")(data_dir=tmp_path)
    with pytest.raises(RunError, match=r"shapes alone: torch.nonzero\(\) needs values; where they need values") as told:
        predict_run(run)
    assert "register_meta" not in str(told.value)
    assert "\n" not in str(told.value)


def test_options_reach_the_junctions(tmp_path):
    write_mnist(tmp_path)
    recipe = load_recipe(RECIPES / "mtj.py")
    run = recipe(
        data_dir=tmp_path, scheme="linear", m=2.0, overdrive=4.0, junction="paper", spread=0.05, stuck=0.02,
        temperature_K=330.0, shift=0.1,
    )  # fmt: skip
    stores = [module for module in run.model.modules() if isinstance(module, DeviceStore)]
    assert len(stores) == 4
    assert len(run.augment) == 1
    for store in stores:
        assert store.scheme == LinearPulse(m=2.0, overdrive=4.0)
        assert store.device.parallel_resistance_ohm == 1500
        flaws = store.nonidealities
        assert flaws.faults == pytest.approx(0.02)
        assert (flaws.resistance_spread, flaws.tmr_spread, flaws.barrier_spread, flaws.critical_current_spread) == (
            (0.05,) * 4
        )
        assert flaws.temperature_K == 330


def test_arrays_and_a_device_of_one_s_own(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "device.toml").write_text(
        "[mtj]\nenergy_barrier_J = 2.4e-19\ncritical_current_A = 4e-5\ndamping = 0.02\nanisotropy_field_T = 0.3\n"
        "parallel_resistance_ohm = 6000\ntmr = 1.2\ntmr_half_voltage_V = 0.5\n",
        encoding="utf-8",
    )
    recipe = load_recipe(RECIPES / "mtj.py")
    run = recipe(
        data_dir=tmp_path, device_file=tmp_path / "device.toml", tile_size=128, wire_ohm=1.0, adc_bits=6, dac_bits=8,
        sense_offset=0.1, thermal_noise=True,
    )  # fmt: skip
    for store in (module for module in run.model.modules() if isinstance(module, DeviceStore)):
        assert store.device.parallel_resistance_ohm == 6000
        assert store.tiles == Tiles(
            size=128, wire_ohm=1.0, adc_bits=6, dac_bits=8, sense_offset=0.1, temperature_K=300.0
        )


def test_every_option_of_scheme_and_non_idealities_reaches_them(tmp_path):
    """Each field of `NonIdealities` is an option, with a value of its own."""
    write_mnist(tmp_path)
    recipe = load_recipe(RECIPES / "mtj.py")
    flaws = {
        field.name: 3 if field.name == "endurance_cycles" else 1e-3 * (1 + number)
        for number, field in enumerate(fields(NonIdealities))
    }
    pulses = {"gain": 5.0, "offset_probability": 0.01, "gate": 0.02, "full_pulse_s": 1e-9}
    run = recipe(data_dir=tmp_path, scheme="paper", voltage_V=0.7, train_images=20, **pulses, **flaws)
    store = next(module for module in run.model.modules() if isinstance(module, DeviceStore))
    assert vars(store.nonidealities) == flaws
    assert store.scheme == LinearPulse(voltage_V=(0.7, -0.7), one_voltage=True, **pulses)
    assert len(run.data.train) == 20
    wafer = recipe(data_dir=tmp_path, spread=0.05, correlated=True)
    store = next(module for module in wafer.model.modules() if isinstance(module, DeviceStore))
    assert store.nonidealities == NonIdealities.uniform(spread=0.05, correlated=True)


def test_an_option_that_the_scheme_does_not_have(tmp_path, capsys):
    write_mnist(tmp_path / "data")
    words = ["--data-dir", tmp_path / "data", "--gain", 3, "--out", tmp_path / "run"]
    assert main(["train", str(RECIPES / "mtj.py"), *map(str, words)]) == 1
    assert "the write scheme read-first has no gain: it is an option of linear, paper" in capsys.readouterr().err


@pytest.mark.slow
def test_trains_through_the_command_line(tmp_path):
    write_mnist(tmp_path / "data")
    words = ["--data-dir", tmp_path / "data", "--batch-size", 10, "--epochs", 1, "--out", tmp_path / "run"]
    words += ["--scheme", "pre-distorted", "--spread", "0.05", "--temperature-K", "320"]
    words += ["--tile-size", "128", "--wire-ohm", "1", "--adc-bits", "6", "--thermal-noise"]
    assert main(["train", str(RECIPES / "mtj.py"), *map(str, words)]) == 0
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["bits_per_weight"] == 2.0
    assert summary["skipped_steps"] == 0
    assert summary["junctions"]["synapses"] == 581_408
    assert summary["junctions"]["write_energy_J"] > 0


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    write_mnist(tmp_path)
    recipe = load_recipe(RECIPES / "mtj.py")

    def run() -> Run:
        return recipe(
            data_dir=tmp_path, batch_size=10, epochs=2, stuck=0.01, tile_size=128, adc_bits=6, thermal_noise=True
        )

    whole, resumed = run(), run()
    Trainer(whole, tmp_path / "whole").fit()
    part = run()
    with pytest.raises(Interrupted):
        Trainer(part, tmp_path / "part", callbacks=[SignalAt(("step ends", 1, 1))]).fit()
    Trainer(resumed, tmp_path / "part", callbacks=[SignalAt(("never", 0, 0))]).resume()
    assert_same_state(training_state(whole), training_state(resumed))
    figures = [read_json(tmp_path / name / "summary.json")["junctions"] for name in ("whole", "part")]
    assert figures[0] == figures[1]
