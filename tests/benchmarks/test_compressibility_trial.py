"""The trial's network and figures, and that what is there is not done again."""

import json
from argparse import Namespace

import pytest
import torch

from benchmarks import compressibility_trial as trial
from tests.recipes.small_data import write_mnist


def test_the_figures_of_a_weight_are_those_of_theory():
    weight = torch.tensor([[3.0, -3.0, 0.0, 3.0]])
    found = trial.shape_of(weight)
    assert found["of_largest"] == pytest.approx((3 / 4) ** 0.5)
    assert found["largest_over_c"] == pytest.approx(1)
    assert trial.alike(weight, weight != 0) == pytest.approx(1)
    drawn = trial.shape_of(torch.randn(50, 40))
    assert drawn["gradient"] == pytest.approx(drawn["gradient_by_formula"], rel=1e-6)


@pytest.mark.slow
def test_a_seed_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    write_mnist(tmp_path / "data", images=200)
    short = trial.Setting(trial.lenet5, "mnist", 1, 1, 1)
    monkeypatch.setattr(trial, "SETTINGS", {"lenet5": short})
    options = Namespace(
        network="lenet5", out=tmp_path / "out", seed=0, data_dir=tmp_path / "data", train_images=None, strengths=[0.0]
    )
    options.split = "validation"
    trial.run(options)
    (path,) = (tmp_path / "out").rglob("*.json")
    found = json.loads(path.read_text())
    assert len(found["layers"]) == 5
    before = path.stat().st_mtime_ns
    trial.run(options)
    assert path.stat().st_mtime_ns == before
    capsys.readouterr()
    trial.table(options)
    assert capsys.readouterr().out.splitlines()[2].startswith("| none | 0 | 1 |")
