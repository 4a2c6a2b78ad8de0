import io

import pytest
from rich.console import Console

from bnn.reports.models import print_models


def test_table_lists_every_network_with_its_figures():
    console = Console(file=io.StringIO(), width=120)
    print_models(console)
    rows = {words[0]: words[1:] for line in console.file.getvalue().splitlines() if (words := line.split())}
    assert rows["mlp"] == ["1x28x28", "399,872", "399,872", "1.00", "0.4", "0.2"]
    assert rows["binarynet"] == ["3x32x32", "14,022,016", "14,022,016", "1.00", "617.0", "613.4"]
    assert rows["resnet18"] == ["3x32x32", "10,992,320", "10,985,472", "1.02", "549.1", "547.4"]
    assert rows["resnete18"][1:3] == ["11,678,912", "10,985,472"]
    assert {"cnv", "vgg_small", "resnet20", "birealnet18"} <= set(rows)
    assert "initialize" not in rows


@pytest.mark.slow
def test_table_fits_a_terminal_of_80_columns():
    console = Console(file=io.StringIO(), width=80)
    print_models(console)
    assert "14,022,016" in console.file.getvalue()
    assert "…" not in console.file.getvalue()
