"""The sizes on the page are those of the exports."""

import re
from pathlib import Path

import pytest

from bnn.export import c_source, program_of
from bnn.export.commands import binary_weights
from bnn.models import binarynet, cnv, mlp, resnet20
from tests.export.networks import network

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
ROW = re.compile(r"\| `(\w+)` \| ([\d,]+) \| ([\d,]+) kB \| ([\d,]+) kB \|")
NETWORKS = {"mlp": (mlp, (1, 28, 28)), "cnv": (cnv, (3, 32, 32)), "resnet20": (resnet20, (3, 32, 32))}


def check(name: str, build, shape) -> None:
    rows = {row[0]: [int(text.replace(",", "")) for text in row[1:]] for row in ROW.findall(PAGE.read_text())}
    program = program_of(network(build, shape, preset="edge-min"))
    source = c_source(program)
    sizes = [round(source.constant_bytes / 1000), round(source.ram_bytes / 1000)]
    assert rows[name] == [binary_weights(program), *sizes]


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_of_small_networks(name):
    check(name, *NETWORKS[name])


@pytest.mark.slow
def test_sizes_of_a_large_network():
    check("binarynet", binarynet, (3, 32, 32))
