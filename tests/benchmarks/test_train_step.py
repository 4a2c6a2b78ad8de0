import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import train_step
from benchmarks.contestants.measure import Figures
from benchmarks.machine import processor
from bnn.ops import cpu

ROOT = Path(__file__).parents[2]
MIB = 2**20


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small run that asks for a preset and an interpreter that are not there; with its JSON."""
    file = tmp_path_factory.mktemp("train_step") / "out.json"
    small = ["--model", "mlp", "--batch", "4", "--warmup", "1", "--steps", "3"]
    missing = ["--presets", "standard,nonsense", "--against", "torch,larq", "--oracle", "/nowhere/python"]
    done = run(*small, *missing, "--json", str(file))
    return done, json.loads(file.read_text())


@pytest.mark.slow
def test_json_has_what_was_measured(measured):
    _, report = measured
    assert report["task"]["model"] == "mlp"
    assert set(report["contestants"]) == {"standard", "torch"}
    for of in report["contestants"].values():
        figures = Figures(**of)
        assert len(figures.step_s) == 3
        assert min(figures.step_s) > 0
        assert figures.parameters == 399_872 + 2 * (4 * 256 + 10)
        # The weights, their gradients and Adam's two moments at least, and less than the whole process.
        assert 4 * 4 * figures.parameters < figures.peak_above_start_bytes < figures.peak_bytes
        assert 0 < figures.last_loss < 10
    assert report["contestants"]["standard"]["instruction_set"] == report["kernels"] == cpu.instruction_set()
    assert report["contestants"]["torch"]["instruction_set"] is None
    assert report["processor"] == processor()
    assert set(report["ratios"]) == {"standard"}
    assert set(report["ratios"]["standard"]["torch"]) == {"step_time", "peak_above_start", "peak", "saved"}
    assert report["ratios"]["standard"]["torch"]["saved"] > 2


@pytest.mark.slow
def test_tables_name_contestants_and_ratios(measured):
    done, report = measured
    for text in ("mlp, batch 4, 1 thread", "above start", "standard", "torch / standard", "401,940"):
        assert text in done.stdout
    assert f"{report['ratios']['standard']['torch']['saved']:.2f}" in done.stdout


@pytest.mark.slow
def test_who_cannot_run_is_left_out_with_a_line(measured):
    done, report = measured
    assert done.stderr.splitlines() == [
        "nonsense is left out: failed: there is no preset 'nonsense';"
        " there are: standard, edge, edge-min, edge-fast, edge-signs",
        "larq is left out: /nowhere/python is missing: run `make oracle`",
    ]
    assert set(report["left_out"]) == {"nonsense", "larq"}
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "1"], "--batch is at least 2"),
        (["--steps", "0"], "--steps is at least 1"),
        (
            ["--against", "torch,keras"],
            "--against knows torch, torch-best, larq, larq-engine and torch's modes, not keras",
        ),
        (["--weights", "recu"], "--weights recu is for resnet8, resnet18, resnet20, vgg_small, not binarynet"),
        (["--json", "/nowhere/out.json"], "there is no folder /nowhere"),
    ],
)
def test_refuses_options_before_it_measures(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_step", *arguments])
    with pytest.raises(SystemExit):
        train_step.options()
    assert message in capsys.readouterr().err


def figures(step_s: list[float], peak: int, above: int, saved: int | None) -> Figures:
    return Figures(step_s, 1.0, peak, above, False, saved, 7)


def test_ratios_are_of_medians_and_above_1_where_ours_is_less():
    ours, other = figures([1, 2, 90], 40, 10, 5), figures([3, 8, 4], 60, 30, 20)
    assert train_step.ratios(ours, other) == {"step_time": 2, "peak_above_start": 3, "peak": 1.5, "saved": 4}
    assert train_step.ratios(ours, figures([1], 1, 1, None))["saved"] is None


def test_a_library_counts_with_the_fastest_of_its_modes(monkeypatch, capsys, tmp_path):
    seconds = {"standard": 4.0, **dict.fromkeys(train_step.MODES, 3.0), "bfloat16-last-compiled-fused": 2.0}
    asked = []

    def run_contestant(contestant, task, variables):
        asked.append((task.mode, task.warmup, task.steps))
        if task.mode == "bfloat16-fused":
            raise train_step.ContestantError("failed: out of luck")
        return figures([seconds[task.mode]], 40, int(10 * seconds[task.mode]), 5)

    monkeypatch.setattr(train_step, "run_contestant", run_contestant)
    file = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["train_step", "--against", "torch-best", "--json", str(file)])
    assert train_step.main() == 1
    printed = capsys.readouterr()
    assert "torch-best as bfloat16-fused is left out: failed: out of luck" in printed.err
    assert "torch-best is bfloat16-last-compiled-fused" in " ".join(printed.out.split())
    report = json.loads(file.read_text())
    assert report["won"] == {"torch-best": "bfloat16-last-compiled-fused"}
    assert report["contestants"]["torch-best"]["peak_above_start_bytes"] == 20
    assert report["ratios"]["standard"]["torch-best"]["step_time"] == 0.5
    assert len(report["tried"]["torch-best"]) == 7
    # What is compiled is compiled in a process of its own first.
    compiled = [call for call in asked if "compiled" in call[0]]
    assert compiled[:2] == [("float32-compiled-fused", 0, 1), ("float32-compiled-fused", 2, 5)]
    assert len(compiled) == 8


@pytest.mark.slow
def test_inference_is_told_in_images_a_second(tmp_path):
    file = tmp_path / "out.json"
    small = ("--model", "mlp", "--batch", "1", "--warmup", "1", "--steps", "2", "--inference", "--against", "torch")
    done = run(*small, "--json", str(file))
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert "mlp, inference, batch 1" in done.stdout
    (step_s,) = {sum(report["contestants"]["torch"]["step_s"]) / 2}
    assert f"{1 / step_s:.0f}" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not train_step.ORACLE.exists(), reason="needs `make oracle`")
@pytest.mark.parametrize("model", train_step.MODELS)
def test_larq_trains_networks_of_the_same_size(model, tmp_path):
    file = tmp_path / "out.json"
    done = run(
        "--model",
        model,
        "--batch",
        "2",
        "--warmup",
        "0",
        "--steps",
        "1",
        "--against",
        "torch,larq",
        "--json",
        str(file),
    )
    assert done.returncode == 0, done.stderr
    contestants = json.loads(file.read_text())["contestants"]
    assert len(contestants) == 3
    sizes = [of["parameters"] for of in contestants.values()]
    # larq-zoo's own networks have other norms at the stem.
    assert max(sizes) - min(sizes) <= (200 if model in ("resnete18", "birealnet18") else 0)
