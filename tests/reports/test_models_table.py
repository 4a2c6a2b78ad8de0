import io

import pytest
from rich.console import Console

from bnn.models import networks
from bnn.reports import models


def test_table_lists_networks_with_their_figures(monkeypatch):
    found = networks()
    assert "initialize" not in found
    some = ("mlp", "binarynet", "resnet18", "resnete18")  # all take seconds
    monkeypatch.setattr(models, "networks", lambda: {name: found[name] for name in some})
    console = Console(file=io.StringIO(), width=120)
    models.print_models(console)
    rows = {words[0]: words[1:] for line in console.file.getvalue().splitlines() if (words := line.split())}
    assert rows["mlp"] == ["1x28x28", "0.400", "0.400", "1.00", "0.4", "0.2"]
    assert rows["binarynet"] == ["3x32x32", "14.022", "14.022", "1.00", "617.0", "613.4"]
    assert rows["resnet18"] == ["3x32x32", "10.992", "10.985", "1.02", "549.1", "547.4"]
    assert rows["resnete18"][1:3] == ["11.679", "10.985"]


@pytest.mark.slow
def test_table_fits_a_terminal_of_80_columns():
    console = Console(file=io.StringIO(), width=80)
    models.print_models(console)
    lines = console.file.getvalue().splitlines()
    assert "14.022" in console.file.getvalue()
    assert "…" not in console.file.getvalue()
    for name in networks():
        assert any(line.split()[:1] == [name] for line in lines)
