"""What a page says of runs that are partial, or lack something."""

import html
import json
import re

import pytest

from bnn.training.directory import read_json, read_metrics
from tests.reports.pages import captions, change, report, text


@pytest.mark.usefixtures("without_memory")
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


@pytest.mark.usefixtures("without_memory")
def test_summary_of_an_earlier_end_is_not_taken_for_the_end(run):
    change(run / "summary.json", epochs=2)
    assert "partial" in text(report(run))


@pytest.mark.usefixtures("without_memory")
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
        ({"arguments": {"depth": 3}}, "does not fit"),
        ({"arguments": {"hidden_layers": 0}}, "--hidden-layers is at least 1"),
        ({"data": {"name": "x"}}, "the description of the .* is damaged"),
    ],
)
def test_without_its_recipe_a_page_says_why_it_has_no_layers(run, configuration, reason):
    change(run / "config.json", **configuration)
    page = report(run)
    assert re.search(rf"No layers are shown: [^<]*{reason}", html.unescape(page))
    # What the run's own files tell is there all the same.
    shown = ["Loss", "Accuracy", "Beside the same in float32", "By operation", "By layer"]
    assert [caption.partition(",")[0] for caption in captions(page)] == shown


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        ({"recipe": None}, "the run's configuration names no recipe"),
        ({"recipe": "gone.py"}, "the run's recipe is none of the package, and is executed with --recipe"),
    ],
)
def test_layers_of_a_run_without_a_recipe_come_from_its_model(run, configuration, reason):
    change(run / "config.json", **configuration)
    page = html.unescape(report(run))
    assert f"These are the layers in the file of the run's model: {reason}" in page
    assert "Trained weights" in captions(page)
    (run / "model.bnnz").unlink()
    assert f"No layers are shown: {reason}" in html.unescape(report(run))


def test_data_that_are_elsewhere_cost_a_page_nothing(run):
    before = captions(report(run))
    change(run / "config.json", arguments={**read_json(run / "config.json")["arguments"], "data_dir": "gone"})
    assert captions(report(run)) == before


def test_changed_recipe_is_told(run):
    change(run / "config.json", recipe_sha256="0" * 64)
    page = report(run)
    assert "has changed since the run began" in page
    assert len(captions(page)) == 9


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
    said = text(report(run, "--recipe", recipe))
    assert "No layers are shown: the model cannot run on shapes alone" in said
