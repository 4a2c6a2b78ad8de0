import json
from pathlib import Path

import pytest
import torch

from benchmarks.methods import METHODS, accuracies, folder_of, measure_one, run_of, table
from tests.recipes.small_data import write_mnist


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder, images=120)
    return folder


@pytest.mark.slow
def test_every_method_is_a_run_of_the_recipe(digits):
    for method in METHODS:
        run = run_of("mlp", digits, method)
        assert run.batch_size == 100
        assert run.take(torch.randn(4, 1, 28, 28), torch.arange(4)) is not None


@pytest.mark.slow
def test_a_step_is_measured(digits):
    figures = measure_one("mlp", digits, "head hadamard")
    assert figures["peak_bytes"] > figures["saved_bytes"] > 0
    assert figures["step_s"] > 0


def test_the_table_pairs_seeds_and_says_what_is_not_measured(tmp_path):
    for method, seed, accuracy in (
        ("plain", 0, 0.9),
        ("plain", 1, 0.94),
        ("boolean, signs", 1, 0.92),
        ("norm l1", 0, 0.91),
        ("norm l1", 1, 0.97),
    ):
        run = folder_of(tmp_path, "mlp", method) / f"seed-{seed}"
        run.mkdir(parents=True)
        (run / "summary.json").write_text(json.dumps({"test_accuracy": accuracy}))
    (folder_of(tmp_path, "mlp", "plain") / "measured.json").write_text(
        json.dumps({"saved_bytes": 2048, "peak_bytes": 4096, "step_s": 0.25})
    )
    lines = table("mlp", tmp_path).splitlines()
    assert "| plain | 2 | 92.00 ± 2.83 |  | 2 | 4 | 250.0 |  |" in lines
    assert "| boolean, signs | 1 | 92.00 | -2.00 |  |  |  |  |" in lines
    assert "| norm l1 | 2 | 94.00 ± 4.24 | +2.00 ± 1.41 |  |  |  |  |" in lines  # of 1 and 3 points
    assert "| bep | 0 | not measured |  |  |  |  |  |" in lines
    assert accuracies(folder_of(tmp_path, "mlp", "plain")) == {"seed-0": 0.9, "seed-1": 0.94}
