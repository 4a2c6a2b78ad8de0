"""The report, as `bnn report` writes it of runs that `bnn train` made."""

import html
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bnn.accounting import HOROWITZ_45NM, PRICE_TABLES
from bnn.accounting.card import quantization_card
from bnn.accounting.meters import read_ledger
from bnn.cli import main
from bnn.reports.energy import KINDS, energy_by_kind, energy_by_layer, operations
from bnn.reports.memory import memory_figures
from bnn.reports.sections import LIFETIMES
from bnn.reports.texts import energy, engineering, size
from bnn.training import Run
from bnn.training.directory import read_json, read_metrics
from bnn.training.recipe import build, load_recipe, values_from_json

DIGITS = str(Path(__file__).parents[2] / "recipes" / "digits.py")
HOSTILE = "<script>alert('$x_{1}$ & \"y\"')<b>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "small"
    words = ("--epochs", "3", "--width", "16", "--hidden-layers", "1", "--batch-size", "128")
    assert main(["train", DIGITS, *words, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path, capsys) -> Path:
    """A complete run to change at will."""
    capsys.readouterr()
    return Path(shutil.copytree(trained, tmp_path / "small"))


def made_again(run: Path) -> Run:
    """As its recipe makes it."""
    recipe = load_recipe(Path(DIGITS))
    return build(recipe, values_from_json(recipe, read_json(run / "config.json")["arguments"]))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def report(*words: Path | str) -> str:
    """Writes a page and gives its source."""
    assert main(["report", *map(str, words)]) == 0
    return (Path(words[-1]) if "-o" in words else Path(words[0]) / "report.html").read_text(encoding="utf-8")


def refused(capsys, *words: Path | str, code: int = 1) -> str:
    """The one line with which a command fails."""
    assert main(["report", *map(str, words)]) == code
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(r"bnn: [^\n]+\n", errors)
    return errors


def text(page: str) -> str:
    """What a reader reads, without the markup."""
    page = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def svgs(page: str) -> list[str]:
    return re.findall(r"<svg\b.*?</svg>", page, flags=re.DOTALL)


def figure(page: str, caption: str) -> str:
    """The SVG under a caption that is there once."""
    (svg,) = re.findall(rf"<figcaption>{re.escape(caption)}</figcaption>.*?(<svg\b.*?</svg>)", page, flags=re.DOTALL)
    return svg


def widths(svg: str, color: int) -> list[float]:
    """Lengths of the bars of a colour."""
    shapes = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: var\(--series-{color}\)', svg)
    return [float(np.ptp([float(x) for x in re.findall(r"[ML] (\S+) ", shape)])) for shape in shapes]


def captions(page: str) -> list[str]:
    return [html.unescape(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", page)]


def lines(svg: str, color: int) -> list[np.ndarray]:
    """The points of each curve of a colour, [n, 2]."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none;[^"]*stroke: var\(--series-{color}\)', svg)
    return [np.array(re.findall(r"[ML] (\S+) (\S+)", path), dtype=float) for path in paths]


# --- what a page says -----------------------------------------------------------------------------------------------


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


def test_curves_are_those_of_the_metrics(run):
    page = report(run)
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


def test_value_that_was_not_finite_leaves_a_gap(run):
    metrics = read_metrics(run)
    metrics[1]["train_loss"] = None
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    training, validation = lines(figure(report(run), "Loss"), 1)
    assert (len(training), len(validation)) == (2, 3)


def rows(page: str, cells: int) -> list[list[str]]:
    """The rows of so many cells of all tables."""
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", page, flags=re.DOTALL)]
    return [[html.unescape(cell) for cell in row] for row in found if len(row) == cells]


def test_layers_are_those_of_the_model(run):
    page = report(run)
    assert rows(page, 8) == [
        ["1", "BinaryLinear", "1,024", "1", "1,024", "", "32", "1,024"],
        ["2", "BatchNorm1d", "", "", "", "32", "32", ""],
        ["3", "BinaryLinear", "160", "1", "160", "", "1", "160"],
        ["4", "BatchNorm1d", "", "", "", "20", "32", ""],
    ]
    for caption in ("Trained weights", "Multiply-accumulates of an example"):
        first, last = widths(figure(page, caption), 1)
        assert first / last == pytest.approx(1024 / 160, rel=1e-3)
    assert "wider weights" not in page


def test_every_figure_is_there(run):
    assert captions(report(run)) == [
        "Loss",
        "Accuracy",
        "Predicted, by variable",
        "Predicted, by how long it is kept",
        "By operation, under each price table",
        "By layer, prices of Horowitz 2014, 45 nm",
        "Trained weights",
        "Multiply-accumulates of an example",
    ]


def test_energy_is_the_ledger_s(run):
    page, ledger = report(run), read_ledger(run)
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


def test_bars_of_energy_are_as_long_as_the_ledger_says(run):
    page, ledger = report(run), read_ledger(run)
    svg = figure(page, "By operation, under each price table")
    for number, _ in enumerate(KINDS, start=1):
        parts = [energy_by_kind(ledger, table)[number - 1] / ledger.energy_J(table) for table in PRICE_TABLES]
        assert np.allclose(
            widths(svg, number), np.array(parts) * sum(widths(svg, n)[0] for n in range(1, 6)), atol=0.01
        )
    drawn = np.array([widths(figure(page, "By layer, prices of Horowitz 2014, 45 nm"), n) for n in range(1, 6)])
    layers = np.array(list(energy_by_layer(ledger, HOROWITZ_45NM).values())).T
    assert np.allclose(drawn / drawn.sum(), layers / layers.sum(), atol=1e-4)


def test_memory_is_that_of_the_exact_model(run):
    page, said = report(run), text((run / "report.html").read_text(encoding="utf-8"))
    figures = memory_figures({"this run": made_again(run)})
    (step,) = figures.predicted.values()
    table = step.table
    drawn = [widths(figure(page, "Predicted, by variable"), color) for color in LIFETIMES.values()]
    kept = [sum(v.bytes for v in table.variables if v.lifetime == lifetime) for lifetime in LIFETIMES]
    assert np.allclose([sum(bars) for bars in drawn], np.array(kept) / table.total_bytes * sum(map(sum, drawn)), atol=1)
    shares = [sum(widths(figure(page, "Predicted, by how long it is kept"), color)) for color in LIFETIMES.values()]
    assert np.allclose(np.array(shares) / sum(shares), np.array(kept) / table.total_bytes, atol=1e-3)
    predicted, measured = (step.saved_bytes, table.total_bytes), figures.measured
    of_both = zip((measured.saved_bytes, measured.peak_live_bytes), predicted, strict=True)
    cells = [[size(n) for n in row] for row in of_both]
    assert [row[1:] for row in rows(page, 3) if row[0] in ("saved for backward", "peak of live tensors")] == cells
    assert f"when they take most: {size(table.total_bytes)} with this run." in said
    assert f"with Python, torch and the data, took {read_json(run / 'summary.json')['peak_rss_mib']:,.0f} MiB" in said


PRESETS = """
from bnn.data import digits
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import Run
from functools import partial


def recipe(*, preset: str = "standard", odd: bool = False) -> Run:
    data = digits()
    build = partial(mlp, classes=10, hidden=(16, 16))
    made = prepare(preset, build, input_shape=data.image_shape)
    if odd:
        made.optimizer.register_step_pre_hook(lambda *_: made.model[1].running_mean.nonzero())
    return Run(made.model, data, made.optimizer, 1, 32, 0, slice_size=made.slice_size, callbacks=made.callbacks)
"""


@pytest.fixture
def of_presets(run, tmp_path):
    """The run as if a recipe with presets had made it, with given arguments."""
    recipe = tmp_path / "presets.py"
    recipe.write_text(PRESETS)

    def changed(**arguments) -> Path:
        change(run / "config.json", recipe=str(recipe), arguments=arguments)
        return run

    return changed


def test_memory_of_a_preset_stands_beside_that_of_standard(of_presets):
    page = report(of_presets(preset="edge-min"))
    saved, peak = (row[1:] for row in rows(page, 4) if row[0] in ("saved for backward", "peak of live tensors"))
    assert saved[0] == saved[1]
    assert peak[0] == peak[1] != peak[2]
    assert f"when they take most: {peak[1]} with edge-min, {peak[2]} with standard." in text(page)
    for number in (1, 2):
        assert widths(figure(page, "Predicted, by variable"), number)


def test_memory_that_cannot_be_predicted_is_a_line(of_presets):
    page = report(of_presets(odd=True))
    assert "No memory is predicted: the step behind forward cannot run on the shape" in text(page)
    assert "Predicted, by variable" not in captions(page)
    assert "<h2>Layers</h2>" in page


def test_card_is_the_run_s(run):
    said = text(report(run))
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
    assert len(captions(page)) == 8 + 2
    assert rows(page, 3)[-2:] == [["1", "0.25", "1"], ["3", "0.125", "—"]]


def test_device_is_shown_where_one_was_simulated(run):
    rows_of_energy = [{"name": "write", "joule": 0.0025, "table": "a device"}]
    change(
        run / "summary.json",
        junctions={"pulses": 12345, "scheme": "linear", "write_energy_J": 3e-8, "energy": rows_of_energy},
    )
    page = report(run)
    assert ["pulses", "12,345"] in rows(page, 2)
    assert ["scheme", "linear"] in rows(page, 2)
    assert ["write_energy_J", "30 nJ"] in rows(page, 2)
    assert ["write", "2.5 mJ", "a device"] in rows(page, 3)
    change(run / "summary.json", junctions=None)
    assert "<h2>Device</h2>" not in report(run)


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


def test_partial_run_says_so_and_shows_its_newest_metrics(run):
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "cut sho')
    said, last = text(report(run)), read_metrics(run)[-1]
    for part in (
        "This run is partial, with 3 of its epochs done.",
        "Test accuracy, measured — known when the run is complete",
        f"Validation accuracy, measured {100 * last['validation_accuracy']:.2f} % epoch 3",
        f"Time, measured {last['wall_s']:.1f} s",
        "Data: UCI optical digits (bundled)",
    ):
        assert part in said, part
    assert "Horowitz" not in said


def test_summary_of_an_earlier_end_is_not_taken_for_the_end(run):
    change(run / "summary.json", epochs=2)
    assert "partial" in text(report(run))


def test_what_a_run_may_lack(run):
    change(run / "summary.json", energy_j=None)
    assert "Energy of training, estimated — not counted: the model cannot run on shapes alone" in text(report(run))
    (run / "summary.json").write_text(json.dumps({"epochs": 3, "test_accuracy": 0.5, "wall_s": 4000.4}))
    metrics = [{"epoch": epoch, "skipped": 7} for epoch in range(3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    said = text(report(run))
    for part in (
        "Validation accuracy, measured — no split for it",
        "Peak memory, measured — not measured",
        "Time, measured 1:06:40 h steps: —; epochs: 3; skipped for a loss or gradient that was not finite: 7",
    ):
        assert part in said, part
    change(run / "summary.json", peak_rss_mib=10.0, peak_device_mib=1234.0, energy_j=1.0, price_table="mine")
    said = text(report(run))
    assert "1,234 MiB of tensors on the device" in said
    assert "mine: a table of the run's own." in said


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        ({"recipe": None}, "the run's configuration names no recipe"),
        ({"recipe": "gone.py"}, "the recipe gone.py of this run is gone"),
        ({"arguments": {"depth": 3}}, "does not fit"),
        ({"arguments": {"data_dir": "gone"}}, "gone"),
    ],
)
def test_without_its_recipe_a_page_says_why_it_has_no_layers(run, configuration, reason):
    change(run / "config.json", **configuration)
    page = report(run)
    assert re.search(rf"No layers are shown: [^<]*{reason}", html.unescape(page))
    # What the run's own files tell is there all the same.
    assert [caption.partition(",")[0] for caption in captions(page)] == ["Loss", "Accuracy", "By operation", "By layer"]


def test_changed_recipe_is_told(run):
    change(run / "config.json", recipe_sha256="0" * 64)
    page = report(run)
    assert "has changed since the run began" in page
    assert len(captions(page)) == 8


def test_model_that_cannot_run_on_shapes_has_no_layers(run, tmp_path):
    recipe = tmp_path / "odd.py"
    recipe.write_text("""
import torch
from torch import nn
from bnn.data import digits
from bnn.training import Run

class Odd(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1) * x.sum().item())

def recipe():
    model = Odd(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Run(model=model, data=digits(), optimizer=optimizer, epochs=1, batch_size=1, seed=0)
""")
    change(run / "config.json", recipe=str(recipe), arguments={})
    assert "No layers are shown: the model cannot run on shapes alone" in text(report(run))


# --- what kind of page it is ----------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Fails where an element is not closed in its turn; keeps names and attributes."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_needs_nothing_besides_itself(run, tmp_path):
    page = report(run, run, "-o", tmp_path / "page.html")
    elements = Elements(page).seen
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in elements}
    for outside in ("http", "//", "src=", "@import", "<!DOCTYPE svg"):
        assert outside not in page, outside
    references = [v for _, attributes in elements for name, v in attributes.items() if name.endswith("href")]
    references += re.findall(r"url\(([^)]*)\)", page)
    assert references
    targets = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert all(reference[0] == "#" and reference[1:] in targets for reference in references)


def test_figures_take_their_colours_from_the_page(run):
    for svg in svgs(report(run)):
        assert "currentColor" in svg
        assert not re.search(r"(fill|stroke): #", svg)


def test_same_run_gives_the_same_page(run):
    assert report(run) == report(run)


def test_hostile_text_is_only_text(run, tmp_path):
    hostile = run.rename(tmp_path / HOSTILE.replace("/", ""))
    change(hostile / "config.json", **{HOSTILE: HOSTILE, "arguments": {HOSTILE: [HOSTILE]}, "recipe": HOSTILE})
    change(
        hostile / "summary.json",
        dataset=HOSTILE,
        price_table=HOSTILE,
        uncounted=[HOSTILE],
        weight_state={HOSTILE: {HOSTILE: HOSTILE}},
        device={HOSTILE: HOSTILE, "energy": [{"name": HOSTILE, "joule": HOSTILE, "table": HOSTILE}]},
        **{HOSTILE: "\ud800"},
    )
    for words in ((hostile,), (hostile, hostile, "-o", tmp_path / "page.html")):
        page = report(*words)
        assert "<script" not in page
        assert "<b>" not in page
        assert text(page).count(HOSTILE) > 5
        Elements(page)


def test_hostile_layer_name_is_only_text(run, tmp_path):
    recipe = tmp_path / "named.py"
    recipe.write_text(f"""
import torch
from torch import nn
from bnn.data import digits
from bnn.training import Run

def recipe():
    model = nn.Sequential(nn.Flatten())
    model.add_module({HOSTILE.replace(".", "")!r}, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Run(model=model, data=digits(), optimizer=optimizer, epochs=1, batch_size=1, seed=0)
""")
    change(run / "config.json", recipe=str(recipe), arguments={})
    page = report(run)
    assert "<script" not in page
    names = map(html.unescape, re.findall(r"<text[^>]*>([^<]*)</text>", figure(page, "Trained weights")))
    assert f"{HOSTILE} Linear" in names
    assert "wider weights" in page


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "is not the directory of a run"),
        ("config.json", "{", "config.json cannot be read"),
        ("metrics.jsonl", None, "metrics.jsonl has no line yet"),
        ("metrics.jsonl", "", "metrics.jsonl has no line yet"),
        ("metrics.jsonl", "{}\n", "metrics.jsonl, line 1, is damaged"),
        ("metrics.jsonl", '{"epoch": 0, "train_loss": "low"}\n', "metrics.jsonl is damaged: train_loss is 'low'"),
        ("metrics.jsonl", '{"epoch": 0, "wall_s": Infinity}\n', "metrics.jsonl is damaged: wall_s is 'inf'"),
        ("summary.json", "[]", "summary.json is damaged"),
        ("summary.json", '{"energy_j": [1]}', "summary.json is damaged: energy_j"),
        ("ledger.json", "{}", "ledger.json is damaged"),
        ("ledger.json", '{"steps": 1, "step": [["read", [8], "a", "never", 1]]}', "ledger.json is damaged"),
    ],
)
def test_damaged_run_is_one_line_and_the_earlier_page_stays(run, capsys, name, content, message):
    (run / "report.html").write_text("earlier")
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    assert message in refused(capsys, run)
    assert (run / "report.html").read_text() == "earlier"
    assert not list(run.glob(".*"))


def test_strict_refuses_what_cannot_be_counted(run, tmp_path, capsys):
    recipe = tmp_path / "doubled.py"
    recipe.write_text("""
import torch
from torch import nn
from bnn.data import digits
from bnn.training import Run

class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x

def recipe():
    model = nn.Sequential(nn.Flatten(), Doubled(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Run(model=model, data=digits(), optimizer=optimizer, epochs=1, batch_size=1, seed=0)
""")
    report(run, "--strict", "-o", tmp_path / "page.html")
    capsys.readouterr()
    change(run / "config.json", recipe=str(recipe), arguments={})
    assert "1 (Doubled)" in refused(capsys, run, "--strict")
    report(run)


def test_places_that_cannot_be_written(run, tmp_path, capsys):
    assert "is a folder: name a file" in refused(capsys, run, "-o", tmp_path)
    assert "cannot be written" in refused(capsys, run, "-o", tmp_path / "no folder" / "page.html")
    assert "is not the directory of a run" in refused(capsys, tmp_path / "no run")


def test_command_lines_that_are_refused(run, capsys):
    assert "RUN" in refused(capsys, code=2)
    assert "-o page.html" in refused(capsys, run, run, code=2)
    assert "at most 8 runs, got 9" in refused(capsys, *[run] * 9, "-o", run / "page.html")


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_missing_extra_is_one_line(run, capsys, monkeypatch, missing):
    for module in [name for name in sys.modules if name.split(".")[0] == missing or name.startswith("bnn.reports.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    message = refused(capsys, run)
    assert missing in message
    assert "pip install 'bnn-edge[report]'" in message
