"""Figures: what is in them, and that the same table gives the same file."""

import re
from xml.etree import ElementTree

import pytest

from bnn.errors import RunError
from hwsim.studies import figures

SWITCHING = {
    "pulse-width-s": [0.0, 1e-9, 2e-9],
    "butler": [0.0, 0.4, 0.9],
    "llg": [0.0, 0.5, 0.8],
    "llg_standard_error": [0.0, 0.1, 0.1],
}
SCHEMES = {"v": [0.0, 1e-3, 1.0], "wanted": [0.0, 3e-3, 1.0], "linear": [0.0, 0.0, 1.0]}


def words(path) -> set[str]:
    """The texts of an SVG."""
    texts = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return {"".join(text.itertext()).strip() for text in texts}


def accuracies(name: str, values: list) -> dict:
    return {name: values, "seed": [0] * len(values), "test_accuracy": [0.5 + 0.01 * k for k in range(len(values))]}


def test_switching(tmp_path):
    path = tmp_path / "a.svg"
    figures.switching(SWITCHING, path, title="some junction")
    assert {"butler", "llg, ± 2 standard errors", "pulse width", "1 ns", "some junction"} <= words(path)
    assert "llg_standard_error" not in words(path)


def test_schemes_are_drawn_over_all_steps_and_over_small_ones(tmp_path):
    path = tmp_path / "a.svg"
    figures.schemes(SCHEMES, path)
    assert {"wanted", "linear", "size of the step v"} <= words(path)
    assert len(re.findall('id="axes_', path.read_text())) == 2


def test_accuracy_over_numbers_has_a_line_and_over_words_none(tmp_path):
    numbers, named = tmp_path / "a.svg", tmp_path / "b.svg"
    figures.accuracy(accuracies("spread", [0.0, 0.1, 0.1, 0.2]), numbers)
    assert {"spread", "test accuracy (%)"} <= words(numbers)
    figures.accuracy(accuracies("scheme", ["linear", "read-first"]), named)
    assert {"linear", "read-first", "scheme"} <= words(named)


def test_accuracy_over_several_options_has_a_line_for_each_combination_of_the_others(tmp_path):
    table = {"gain": [1, 1, 3, 3], "gate": [0.0, 0.1] * 2, "seed": [0] * 4, "test_accuracy": [0.1, 0.2, 0.3, 0.4]}
    figures.accuracy(table, tmp_path / "a.svg")
    assert {"gain", "gate 0.0", "gate 0.1"} <= words(tmp_path / "a.svg")


def test_more_schemes_than_colours(tmp_path):
    table = SCHEMES | {f"scheme {number}": [0.0, 0.1, 0.2] for number in range(6)}
    figures.schemes(table, tmp_path / "a.svg")
    assert {f"scheme {number}" for number in range(6)} <= words(tmp_path / "a.svg")


def test_small_differences_of_accuracy_look_small(tmp_path):
    figures.accuracy({"stuck": [0.0, 0.1], "seed": [0, 0], "test_accuracy": [0.9301, 0.9302]}, tmp_path / "a.svg")
    assert {"92", "93", "94"} <= {word.removesuffix(".0") for word in words(tmp_path / "a.svg")}


def test_the_same_table_gives_the_same_file_on_an_opaque_ground(tmp_path):
    one, two = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (one, two):
        figures.switching(SWITCHING, path)
    assert one.read_bytes() == two.read_bytes()
    assert "fill: #ffffff" in one.read_text()


def test_png(tmp_path):
    figures.schemes(SCHEMES, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        figures.schemes(SCHEMES, tmp_path / "none" / "a.svg")
