"""Runs by kind: what differs in the seed alone is one, with a mean, a deviation and paired differences."""

from dataclasses import dataclass, field
from statistics import stdev
from typing import Any

import pytest

from bnn.reports.groups import MEASURES, grouped, paired, signed_text, spread, spread_text, values

ACCURACY = MEASURES["test_accuracy"]


@dataclass
class ARun:
    label: str
    configuration: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)


def run(label: str, accuracy: float | None = None, **arguments: Any) -> ARun:
    return ARun(label, {"recipe": "recipes/mine.py", "arguments": arguments}, {"test_accuracy": accuracy})


TWO_KINDS = [
    run("a0", 0.90, seed=0, preset="standard", data_dir="here"),
    run("b0", 0.93, seed=0, preset="edge", data_dir="there"),
    run("a1", 0.92, seed=1, preset="standard"),
    run("b1", 0.94, seed=1, preset="edge"),
    run("b2", 0.10, seed=2, preset="edge"),
]


def test_kinds_are_named_by_what_differs_and_places_do_not_count():
    assert [(group.name, group.members) for group in grouped(TWO_KINDS)] == [
        ("preset standard", (0, 2)),
        ("preset edge", (1, 3, 4)),
    ]


def test_runs_that_are_alone_keep_their_names():
    assert [group.name for group in grouped([TWO_KINDS[0], TWO_KINDS[1]])] == ["a0", "b0"]


def test_a_seed_that_is_there_twice_is_no_second_sample():
    assert [group.name for group in grouped([TWO_KINDS[0], TWO_KINDS[0]])] == ["a0", "a0"]
    again = [*TWO_KINDS[:3], TWO_KINDS[0]]
    assert [group.members for group in grouped(again)] == [(0, 2), (1,), (3,)]


def test_a_single_kind_is_named_after_its_recipe():
    assert [group.name for group in grouped([TWO_KINDS[0], TWO_KINDS[2]])] == ["mine"]


def test_spread_is_mean_and_sample_deviation():
    first = grouped(TWO_KINDS)[0]
    found = spread(values(TWO_KINDS, first, ACCURACY))
    assert (found.mean, found.count) == (pytest.approx(0.91), 2)
    assert found.deviation == pytest.approx(stdev([0.90, 0.92]))
    assert spread_text(found, ACCURACY) == "91.00 % ± 1.41 %"
    assert spread_text(spread([0.5]), ACCURACY) == spread_text(spread([0.5, 0.5]), ACCURACY) == "50.00 %"
    assert spread_text(spread([]), ACCURACY) == "—"


def test_differences_are_paired_by_seed():
    standard, edge = grouped(TWO_KINDS)
    found = paired(TWO_KINDS, edge, standard, ACCURACY)
    assert (found.count, found.mean) == (2, pytest.approx(0.025))
    assert signed_text(found, ACCURACY) == "+2.50 % ± 0.71 %"
    assert signed_text(paired(TWO_KINDS, standard, edge, ACCURACY), ACCURACY) == "-2.50 % ± 0.71 %"
    assert (
        paired(
            [run("a", 0.5, seed=0), run("b", 0.5, seed=1, x=1)],
            *grouped([run("a", 0.5, seed=0), run("b", 0.5, seed=1, x=1)]),
            ACCURACY,
        )
        is None
    )


@pytest.mark.parametrize("damaged", [None, "much", float("nan")])
def test_what_is_no_number_is_left_out(damaged):
    runs = [run("a", damaged, seed=0), run("b", 0.5, seed=1)]
    assert values(runs, grouped(runs)[0], ACCURACY) == [0.5]
