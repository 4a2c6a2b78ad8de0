"""What `bnn report` refuses, in one line."""

import sys

import pytest

from tests.reports.pages import change, refused, report


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "is not the directory of a run"),
        ("config.json", "{", "config.json is damaged"),
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
    assert "1 (Doubled)" in refused(capsys, run, "--strict", "--recipe", recipe)
    report(run, "--recipe", recipe)


def test_places_that_cannot_be_written(run, tmp_path, capsys):
    assert "is a folder: name a file" in refused(capsys, run, "-o", tmp_path)
    assert "cannot be written" in refused(capsys, run, "-o", tmp_path / "no folder" / "page.html")
    assert "is not the directory of a run" in refused(capsys, tmp_path / "no run")


def test_command_lines_that_are_refused(run, capsys):
    assert "RUN" in refused(capsys, code=2)
    assert "-o page.html" in refused(capsys, run, run, code=2)
    assert "at most 8 kinds of runs, got 9" in refused(capsys, *[run] * 9, "-o", run / "page.html")


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_missing_extra_is_one_line(run, capsys, monkeypatch, missing):
    for module in [name for name in sys.modules if name.split(".")[0] == missing or name.startswith("bnn.reports.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    message = refused(capsys, run)
    assert missing in message
    assert "pip install 'bnn-edge[report]'" in message
