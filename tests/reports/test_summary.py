import io
from pathlib import Path

import pytest
from rich.console import Console

from bnn.reports.summary import print_summary

SUMMARY = {
    "test_accuracy": 0.9611,
    "validation_accuracy": 0.9861,
    "best_validation_accuracy": 0.9931,
    "best_validation_epoch": 25,
    "dataset": "drawn [by hand]",
    "bits_per_weight": 1.0,
    "weights": 150016,
    "peak_rss_mib": 325.4,
    "energy_j": 2.25,
    "price_table": "Horowitz 2014, 45 nm",
    "energy_by_table_j": {"Horowitz 2014, 45 nm": 2.25, "another": 0.0015},
    "wall_s": 17.4,
    "steps": 1600,
    "epochs": 40,
    "skipped_steps": 0,
    "images_per_s": 1234.5,
    "beside_float": {"step_bytes": {"this": 2**20, "float": 25 * 2**20}},
}


def printed(directory: str = "runs/a", **changes) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_summary(console, {**SUMMARY, **changes}, Path(directory))
    return console.file.getvalue()


@pytest.mark.parametrize(
    "part",
    [
        "test accuracy, final epoch",
        "96.11 %",
        "98.61 % (best 99.31 % at epoch 25)",
        "drawn [by hand]",
        "1 (150,016 weights)",
        "325 MiB",
        "2.25 J (prices: Horowitz 2014, 45 nm)",
        "1.5 mJ (prices: another)",
        "17.4 s for 1,600 steps, 40 epochs",
        "1,234 examples/s in training steps",
        "memory of a step, predicted   1.00 MiB   25.00 MiB    25 times less",
        "files: runs/a",
    ],
)
def test_every_figure_is_in_the_table(part):
    assert part in printed()


def test_parts_that_a_run_may_lack():
    assert "not counted: the model cannot run on shapes alone" in printed(energy_j=None)
    assert "7 whose loss or gradient was not finite" in printed(skipped_steps=7)
    assert "skipped" not in printed()
    assert "12 MiB of tensors" in printed(peak_device_mib=12.0)
    no_validation = {name: value for name, value in SUMMARY.items() if "validation" not in name}
    console = Console(file=io.StringIO(), width=120)
    print_summary(console, no_validation, Path("a"))
    assert "validation" not in console.file.getvalue()


def test_long_directory_is_not_broken_over_lines():
    assert f"files: {'d' * 200}\n" in printed("d" * 200)
