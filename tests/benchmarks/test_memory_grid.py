import io
import sys

import pytest
from rich.console import Console

from benchmarks.memory_grid import grid_table, is_right, main
from bnn.ops import cpu

RIGHT = {
    "model": "mlp",
    "preset": "edge",
    "batch": 40,
    "predicted_saved_bytes": 3 * 2**20,
    "saved_bytes": 3 * 2**20,
    "graph_bytes": 3 * 2**20,
    "predicted_peak_bytes": 10.75 * 2**20,
    "peak_live_bytes": 10 * 2**20,
    "resident_bytes": None,
}


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"saved_bytes": 3 * 2**20 + 1}, False),
        ({"graph_bytes": 3 * 2**20 - 1}, False),
        ({"predicted_peak_bytes": 9.25 * 2**20}, True),
        ({"predicted_peak_bytes": 11.25 * 2**20}, False),
        ({"predicted_peak_bytes": 8.75 * 2**20}, False),
    ],
)
def test_saved_bytes_must_be_equal_and_the_peak_near(changes, right):
    assert is_right({**RIGHT, **changes}) is right


def test_rows_of_the_table():
    console = Console(file=io.StringIO(), width=120)
    console.print(grid_table([RIGHT]))
    rows = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["mlp", "edge", "40", "3.00", "3.00", "3.00", "10.75", "10.00", "1.075", "-"] in rows


@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="the reference makes float copies")
@pytest.mark.slow
def test_a_step_of_the_grid(tmp_path, monkeypatch, capsys):
    words = ["--models", "mlp", "--presets", "edge-min", "--batches", "3", "--json", str(tmp_path / "grid.json")]
    monkeypatch.setattr(sys, "argv", ["memory_grid", *words])
    assert main() == 0
    assert "1 steps, 0 predicted wrong" in capsys.readouterr().out
    assert (tmp_path / "grid.json").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--models", "mpl"), "there is no mpl"),
        (("--batches", "1"), "at least 2"),
        (("--batches", "a"), "--batches takes numbers"),
    ],
)
def test_mistakes_are_told(words, part, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["memory_grid", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert (left.value.code, part in capsys.readouterr().err) == (2, True)
