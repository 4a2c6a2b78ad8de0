from functools import partial
from types import SimpleNamespace

import pytest
import torch

from bnn.models import binarynet
from bnn.reports.memory import memory_figures

MIB = 2**20


def a_run(*, optimizer=torch.optim.Adam):
    with torch.device("meta"):
        model = binarynet()
    data = SimpleNamespace(image_shape=(3, 32, 32))
    return SimpleNamespace(model=model, data=data, batch_size=100, optimizer=optimizer(model.parameters(), lr=0.1))


def totals(arguments, **options) -> dict[str, float]:
    figures = memory_figures(a_run(**options), arguments)
    return {name: round(table.total_bytes / MIB, 2) for name, table in figures.tables.items()}


def test_figures_are_those_of_the_published_model():
    assert totals({"preset": "edge"}) == {"edge": 138.13, "standard": 512.81}
    assert totals({}) == {"standard": 512.81}
    momentum = partial(torch.optim.SGD, momentum=0.9)
    assert totals({"preset": "edge"}, optimizer=momentum) == {"edge": 111.38, "standard": 459.32}


def test_the_run_s_own_preset_comes_first_and_the_model_is_named():
    figures = memory_figures(a_run(), {"preset": "edge"})
    assert list(figures.tables) == ["edge", "standard"]
    assert "2102.04270" in figures.model
    assert "Adam" in figures.model


@pytest.mark.parametrize(
    ("arguments", "optimizer"), [({"preset": "edge-min"}, torch.optim.Adam), ({}, torch.optim.RMSprop)]
)
def test_what_the_model_knows_nothing_of_has_no_figures(arguments, optimizer):
    assert memory_figures(a_run(optimizer=optimizer), arguments) is None
