"""What a page says, of runs that `bnn train` made."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bnn.cost.energy import HOROWITZ_45NM, PRICE_TABLES
from bnn.cost.meters.card import quantization_card
from bnn.cost.meters.summary import read_ledger
from bnn.reports.energy import KINDS, energy_by_kind, energy_by_layer, operations
from bnn.reports.memory import memory_figures
from bnn.reports.sections import LIFETIMES
from bnn.reports.texts import energy, engineering, size
from bnn.training.directory import read_json, read_metrics
from tests.reports.pages import captions, change, figure, lines, made_again, report, rows, text, widths


def test_figures_are_those_of_the_files(run, capsys):
    said = text(report(run))
    assert f"page: {run / 'report.html'}\n" == capsys.readouterr().out
    summary, last, configuration = (
        read_json(run / "summary.json"),
        read_metrics(run)[-1],
        read_json(run / "config.json"),
    )
    best = f"{100 * summary['best_validation_accuracy']:.2f} % at epoch {summary['best_validation_epoch']}"
    for part in (
        f"Test accuracy, measured {100 * summary['test_accuracy']:.2f} % final epoch",
        f"Validation accuracy, measured {100 * summary['validation_accuracy']:.2f} % final epoch; best {best}",
        "Bits a weight, counted 1 1,184 weights; 52 parameters of norms",
        f"Peak memory, measured {summary['peak_rss_mib']:,.0f} MiB resident",
        f"Energy of training, estimated {1e3 * summary['energy_j']:.3g} mJ prices: Horowitz 2014, 45 nm;",
        "Horowitz 2014, 45 nm (M. Horowitz",
        "every operand of a layer is taken to move between DRAM",
        f"Time, measured {summary['wall_s']:.1f} s steps: {summary['steps']}; epochs: 3",
        "Data: UCI optical digits (bundled)",
    ):
        assert part in said, part
    values = {**summary, **last, **configuration["arguments"], **configuration["versions"]}
    for name, value in values.items():
        if isinstance(value, (dict, list)):
            continue
        assert f"{name} {value if isinstance(value, str) else json.dumps(value)}" in said, name


def test_curves_are_those_of_the_metrics(run, page):
    loss, accuracy = figure(page, "Loss"), figure(page, "Accuracy")
    metrics = read_metrics(run)
    for svg, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        drawn = np.concatenate(lines(svg, 1))
        values = [record[f"{split}_{quantity}"] for split in ("train", "validation") for record in metrics]
        assert np.allclose(np.diff(drawn[:3, 0]), drawn[1, 0] - drawn[0, 0], atol=1e-3)
        # Heights on the page are values, shifted, scaled and upside down.
        slope, offset = np.polyfit(values, drawn[:, 1], 1)
        assert slope < 0
        assert np.allclose(drawn[:, 1], slope * np.array(values) + offset, atol=1e-3)


@pytest.mark.usefixtures("without_memory")
def test_value_that_was_not_finite_leaves_a_gap(run):
    metrics = read_metrics(run)
    metrics[1]["train_loss"] = None
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    training, validation = lines(figure(report(run), "Loss"), 1)
    assert (len(training), len(validation)) == (2, 3)


def test_layers_are_those_of_the_model(page):
    assert rows(page, 8) == [
        ["1.product", "BinaryLinear", "1,024", "1", "1,024", "", "32", "1,024"],
        ["1.norm", "BatchNorm1d", "", "", "", "32", "32", ""],
        ["2.product", "BinaryLinear", "160", "1", "160", "", "1", "160"],
        ["2.norm", "BatchNorm1d", "", "", "", "20", "32", ""],
    ]
    for caption in ("Trained weights", "Multiply-accumulates of an example"):
        first, last = widths(figure(page, caption), 1)
        assert first / last == pytest.approx(1024 / 160, rel=1e-3)
    assert "wider weights" not in page


def test_every_figure_is_there(page):
    assert captions(page) == [
        "Loss",
        "Accuracy",
        "Predicted, by variable",
        "Predicted, by how long it is kept",
        "Beside the same in float32, prices of Horowitz 2014, 45 nm",
        "By operation, under each price table",
        "By layer, prices of Horowitz 2014, 45 nm",
        "Trained weights",
        "Multiply-accumulates of an example",
    ]


def test_energy_is_the_ledger_s(run, page):
    ledger = read_ledger(run)
    totals = [ledger.energy_J(table) for table in PRICE_TABLES]
    assert totals[0] == pytest.approx(read_json(run / "summary.json")["energy_j"], rel=1e-12)
    for table, total in zip(PRICE_TABLES, totals, strict=True):
        assert f"{engineering(total)}J" in figure(page, "By operation, under each price table")
        assert table.caveat in text(page)
    said = text(page)
    assert f"; {energy(totals[1])} under Jouppi 2021, 7 nm; {energy(totals[2])} under Jouppi 2021, 7 nm, all" in said
    assert f"Counted: {engineering(ledger.products).strip()} multiply-accumulates" in said
    assert f"and {engineering(ledger.moved_bytes)}B moved" in said
    for row in operations(ledger, PRICE_TABLES):
        cells = [row.name, row.phase, f"{engineering(row.count)}{row.unit}".strip(), *map(energy, row.energy_J)]
        assert cells in rows(page, 6), row


def test_bars_of_energy_are_as_long_as_the_ledger_says(run, page):
    ledger = read_ledger(run)
    svg = figure(page, "By operation, under each price table")
    for number, _ in enumerate(KINDS, start=1):
        parts = [energy_by_kind(ledger, table)[number - 1] / ledger.energy_J(table) for table in PRICE_TABLES]
        assert np.allclose(
            widths(svg, number), np.array(parts) * sum(widths(svg, n)[0] for n in range(1, 6)), atol=0.01
        )
    drawn = np.array([widths(figure(page, "By layer, prices of Horowitz 2014, 45 nm"), n) for n in range(1, 6)])
    layers = np.array(list(energy_by_layer(ledger, HOROWITZ_45NM).values())).T
    assert np.allclose(drawn / drawn.sum(), layers / layers.sum(), atol=1e-4)


def test_memory_is_that_of_the_exact_model(run, page):
    said = text(page)
    figures = memory_figures({"this run": made_again(run)})
    step, in_float = figures.predicted.values()
    table = step.table
    for color, memory in ((1, step), (2, in_float)):
        drawn = widths(figure(page, "Predicted, by variable"), color)
        scale = sum(widths(figure(page, "Predicted, by variable"), 1)) / table.total_bytes
        assert sum(drawn) == pytest.approx(scale * memory.table.total_bytes, rel=0.01)
    kept = [sum(v.bytes for v in table.variables if v.lifetime == lifetime) for lifetime in LIFETIMES]
    shares = [widths(figure(page, "Predicted, by how long it is kept"), color)[0] for color in LIFETIMES.values()]
    assert np.allclose(np.array(shares) / sum(shares), np.array(kept) / table.total_bytes, atol=1e-3)
    measured = figures.measured
    saved = (measured.saved_bytes, step.saved_bytes, in_float.saved_bytes)
    peak = (measured.peak_live_bytes, table.total_bytes, in_float.table.total_bytes)
    cells = [[size(n) for n in row] for row in (saved, peak)]
    assert [row[1:] for row in rows(page, 4) if row[0] in ("saved for backward", "peak of live tensors")] == cells
    assert f"take most: {size(peak[1])} with standard, {size(peak[2])} in float32." in said
    assert f"with Python, torch and the data, took {read_json(run / 'summary.json')['peak_rss_mib']:,.0f} MiB" in said


PRESETS = """
from bnn.data import digits
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import Precision, Run
from functools import partial
from torch import nn


def recipe(
    *, preset: str = "standard", odd: bool = False, smooth: bool = False, precision: Precision = "float32"
) -> Run:
    data = digits()
    build = partial(mlp, input_shape=data.image_shape, classes=10, hidden=(16, 16))
    step = prepare(preset, build, input_shape=data.image_shape)
    if odd:
        step.optimizer.register_step_pre_hook(lambda *_: step.model[1].norm.running_mean.nonzero())
    choices = {**vars(step), "precision": precision}
    if smooth:
        choices["loss"] = nn.CrossEntropyLoss(label_smoothing=0.1)
    return Run(**choices, data=data, epochs=1, batch_size=32, seed=0)
"""


@pytest.fixture
def of_presets(run, tmp_path):
    """The run as if a recipe with presets had made it, with given arguments."""
    recipe = tmp_path / "presets.py"
    recipe.write_text(PRESETS)

    def changed(**arguments) -> list[Path | str]:
        change(run / "config.json", recipe=str(recipe), arguments=arguments)
        return [run, "--recipe", recipe]

    return changed


def test_memory_of_a_preset_stands_beside_that_of_standard(of_presets):
    page = report(*of_presets(preset="edge-min"))
    saved, peak = (row[1:] for row in rows(page, 5) if row[0] in ("saved for backward", "peak of live tensors"))
    assert saved[0] == saved[1]
    assert peak[0] == peak[1] != peak[2]
    assert f"take most: {peak[1]} with edge-min, {peak[2]} with standard, {peak[3]} in float32." in text(page)
    for number in (1, 2, 3):
        assert widths(figure(page, "Predicted, by variable"), number)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({}, "Predicted on shapes alone, and measured while the report was made, in a step with random data."),
        ({"smooth": True}, "in a step with random data and the loss CrossEntropyLoss."),
        (
            {"precision": "bfloat16"},
            "Predicted on shapes alone, for products of float32, and measured while the report was made, in a step"
            " with random data, with the run's products of bfloat16.",
        ),
    ],
)
def test_memory_tells_what_is_measured(of_presets, choices, told):
    assert told in text(report(*of_presets(preset="standard", **choices)))


def test_memory_that_cannot_be_predicted_is_a_line(of_presets):
    page = report(*of_presets(odd=True))
    assert "No memory is predicted: backward or update cannot run on shapes alone" in text(page)
    assert "Predicted, by variable" not in captions(page)
    assert "<h2>Layers</h2>" in page


def test_card_is_the_run_s(run, page):
    said = text(page)
    for name, choice in quantization_card(made_again(run)).items():
        assert f"{name} {choice}" in said, name


def test_choices_that_differ_are_marked(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    change(other / "config.json", arguments={**read_json(run / "config.json")["arguments"], "batch_size": 7})
    page = report(run, other, "-o", tmp_path / "both.html")
    assert re.findall(r'<tr class="differs"><th scope="row">(.*?)</th>', page) == ["batch"]
    assert "batch 128 7 " in text(page)


def test_weights_over_the_epochs_are_shown_where_they_were_measured(run):
    metrics = [{**record, "flip_rate": 0.5 / (1 + record["epoch"]), "tau": 0.9} for record in read_metrics(run)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    change(
        run / "summary.json", weight_state={"1": {"flip_rate": 0.25, "sign_entropy": 1.0}, "3": {"flip_rate": 0.125}}
    )
    page = report(run)
    (points,) = lines(figure(page, "Weights that flip in a step"), 1)
    steps = -np.diff(points[:, 1])
    assert steps[0] / steps[1] == pytest.approx((0.25 - 0.5) / (0.5 / 3 - 0.25), rel=1e-3)
    assert "ReCU's tau" in captions(page)
    assert len(captions(page)) == 9 + 2
    assert rows(page, 3)[-2:] == [["1", "0.25", "1"], ["3", "0.125", "—"]]


@pytest.mark.usefixtures("without_memory")
def test_device_is_shown_where_one_was_simulated(run):
    rows_of_energy = [{"name": "write", "joule": 0.0025, "table": "a device"}]
    change(
        run / "summary.json",
        junctions={"pulses": 12345, "scheme": "linear", "write_energy_J": 3e-8, "energy": rows_of_energy},
    )
    page = report(run)
    assert ["pulses", "12,345"] in rows(page, 2)
    assert ["scheme", "linear"] in rows(page, 2)
    assert ["write energy", "30 nJ"] in rows(page, 2)
    assert ["write", "2.5 mJ", "a device"] in rows(page, 3)
    change(run / "summary.json", junctions=None)
    assert "<h2>Device</h2>" not in report(run)


@pytest.mark.usefixtures("without_memory")
def test_what_was_not_counted_is_named(run):
    change(run / "summary.json", uncounted=["1 (Odd)"])
    assert "Not counted, since it is not known what they compute: 1 (Odd)." in text(report(run))


def test_several_runs_stand_side_by_side(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    change(other / "summary.json", test_accuracy=0.12345)
    page = report(run, other, "-o", tmp_path / "both.html")
    accuracy = 100 * read_json(run / "summary.json")["test_accuracy"]
    assert f"Test accuracy, measured {accuracy:.2f} % final epoch 12.35 % final epoch" in text(page)
    assert text(page).index("small") < text(page).index("other")
    for caption in ("Loss", "Accuracy"):
        svg = figure(page, caption)
        assert len(lines(svg, 1)) == len(lines(svg, 2)) == 2
        assert not lines(svg, 3)


def test_runs_of_the_same_name_are_told_apart_by_their_paths(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "b" / "small"))
    said = text(report(run, other, "-o", tmp_path / "both.html"))
    assert f"{run} {other} Test accuracy" in said


def test_the_first_screen_says_what_and_where_and_against_what(run):
    summary, configuration = read_json(run / "summary.json"), read_json(run / "config.json")
    said = text(report(run))
    first, _, _ = said.partition(" Learning ")
    for part in (
        f"small Recipe digits, preset standard, 1,184 weights, began {configuration['began']}"
        " Data: UCI optical digits (bundled)",
        configuration["machine"],
        f"bnn {configuration['versions']['bnn']}, torch {configuration['versions']['torch']}",
        f"Beside the same network in float32 Memory of a step, {summary['beside_float']['step_bytes']['how']}",
        f"{energy(summary['beside_float']['energy_j']['float'])} Trained network, counted",
    ):
        assert part in first, part
    ratio = summary["beside_float"]["network_bytes"]["float"] / summary["beside_float"]["network_bytes"]["this"]
    assert f"Trained network, counted {ratio:.2g} times less" in first


def test_a_single_epoch_has_its_figures_beside_its_points(run):
    (run / "metrics.jsonl").write_text(json.dumps(read_metrics(run)[0]) + "\n")
    change(run / "summary.json", epochs=1)
    record = read_metrics(run)[0]
    loss = figure(report(run), "Loss")
    assert f"train {record['train_loss']:.4g}" in loss
    assert f"validation {record['validation_loss']:.4g}" in loss


def test_runs_of_several_seeds_are_one_column_with_mean_and_deviation(run, tmp_path):
    runs = [run]
    for name, seed, width, accuracy in (("b", 1, 16, 0.5), ("c", 0, 32, 0.8), ("d", 1, 32, 0.9)):
        runs.append(Path(shutil.copytree(run, tmp_path / name)))
        arguments = {**read_json(run / "config.json")["arguments"], "seed": seed, "width": width}
        change(runs[-1] / "config.json", arguments=arguments)
        change(runs[-1] / "summary.json", test_accuracy=accuracy)
    change(run / "summary.json", test_accuracy=0.6)
    page = report(*runs, "-o", tmp_path / "all.html")
    said = text(page)
    assert "width 16 2 runs: mean ± sample deviation width 32 2 runs: mean ± sample deviation" in said
    assert (
        "Test accuracy, measured 55.00 % ± 7.07 % 85.00 % ± 7.07 % +30.00 % ± 14.14 % from width 16, over 2 seeds"
        in said
    )
    assert ["width 32", "1", "90.00 %", "87.50 %", "d"] in [[*row[:3], "87.50 %", row[4]] for row in rows(page, 5)]
    svg = figure(page, "Loss")
    assert (len(lines(svg, 1)), len(lines(svg, 2)), len(lines(svg, 3))) == (4, 4, 0)
    # What would be there once for each run stands side by side, or not at all.
    assert "Trained weights" not in captions(page)
    assert captions(page).count("Peak memory of the process, measured") == 1


def test_junctions_of_several_runs_stand_side_by_side(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    for folder, energy_J in ((run, 3e-8), (other, 4e-8)):
        change(folder / "summary.json", junctions={"write_energy_J": energy_J, "fraction_in_0_s": 0.25})
    found = rows(report(run, other, "-o", tmp_path / "both.html"), 3)
    assert ["write energy", "30 nJ", "40 nJ"] in found
    assert ["fraction of synapses at 0", "0.25", "0.25"] in found
