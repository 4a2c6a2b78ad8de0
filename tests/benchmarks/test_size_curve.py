"""The table of accuracy against size: runs of one name together, their seeds apart."""

import json
from argparse import Namespace

from benchmarks.size_curve import draw


def test_runs_that_differ_in_their_last_number_are_one_row(tmp_path, capsys):
    for seed, accuracy in ((0, 50.0), (1, 60.0)):
        figures = {"accuracy": accuracy, "divergence": 0.5, "bytes": 1000 + seed}
        (tmp_path / f"r8-{seed}.json").write_text(json.dumps({"as it is": figures, "nearest, 1kB": figures}))
    draw(Namespace(out=tmp_path, figure=tmp_path / "curve.svg"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| r8 | as it is | 2 | 1,000 | 55.00 (50.00, 60.00) | 0.5000 |"
    assert len(lines) == 4
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
