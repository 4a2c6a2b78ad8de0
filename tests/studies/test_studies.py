"""Predictions of theory: the closed forms that they are compared with, and each study as a whole."""

import math
from importlib import import_module
from pathlib import Path

import pytest
import torch

from studies import coherence, denoiser, initialization_scale, kernel_and_rich, max_margin
from studies.__main__ import STUDIES, main
from studies.study import Curve, Finding, Measured, draw


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_predictions_hold(name):
    measured = import_module(f"studies.{name}").measure(seed=0)
    assert [str(finding) for finding in measured.findings if not finding.holds] == []


def test_every_study_is_in_the_page():
    page = Path(max_margin.__file__).parents[1] / "docs" / "theory.md"
    text = page.read_text()
    assert [name for name in STUDIES if f"studies/{name}.py" not in text] == []


def test_support_vector_machine_of_two_points():
    # The nearest points of both classes are 2 apart along the first axis.
    signed = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(max_margin.support_vector_machine(signed), torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_minimizer_interpolates_between_least_squares_and_sparse():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    y = torch.randn(4, generator=generator, dtype=torch.float64)
    large, small = (kernel_and_rich.minimizer(x, y, alpha) for alpha in (30.0, 0.05))
    torch.testing.assert_close(x @ small, y)
    torch.testing.assert_close(large, torch.linalg.pinv(x) @ y, rtol=1e-3, atol=1e-3)
    least = kernel_and_rich.least_absolute_sum(x, y)
    assert least <= float(small.abs().sum()) < 1.15 * least < float(large.abs().sum())


def test_minimizer_of_one_equation():
    # sinh is the same function of each coordinate: beta = 2 a² sinh(nu x), so that x beta = y gives nu.
    x, y = torch.ones(1, 2, dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    torch.testing.assert_close(kernel_and_rich.minimizer(x, y, 0.7), torch.full((2,), 1.5, dtype=torch.float64))


def test_largest_l1_margin_of_unit_vectors():
    # With one example for each axis the best weighs all alike, 1 / n each.
    assert initialization_scale.largest_l1_margin(torch.eye(4, dtype=torch.float64)) == pytest.approx(0.25)


def test_denoised_is_constant_on_clusters_and_straight_between():
    noise, (first, second, last) = denoiser.NOISE, denoiser.POINTS
    middle = (first + second) / 2
    asked = torch.tensor([first - noise, first + noise, middle, second, last + noise])
    torch.testing.assert_close(denoiser.denoised(asked), torch.tensor([first, first, middle, second, last]))


@pytest.mark.parametrize("binary", [False, True])
def test_coherence_of_copies_is_their_number(binary):
    generator = torch.Generator().manual_seed(0)
    weights = coherence.start(64, generator)
    image = torch.randn(1, 64, generator=generator).expand(7, -1)
    assert coherence.coherence(weights, image, torch.full((7,), 3), binary=binary) == pytest.approx(7, rel=1e-4)


def test_binary_gradients_are_those_of_the_sign_with_a_window():
    weights = {"first": torch.tensor([[0.5, -2.0]]), "last": torch.eye(10, 1)}
    given = coherence.gradients(weights, torch.tensor([[1.0, 1.0]]), torch.tensor([0]), binary=True)
    # The hidden sum is (1 - 1) / sqrt 2 = 0, whose sign is 1; the logit is 1, its gradient softmax - 1.
    softmax = math.e / (math.e + 9)
    expected = torch.tensor([[[(softmax - 1) / math.sqrt(2), 0.0]]])  # -2 lies outside of the window
    torch.testing.assert_close(given["first"], expected)


@pytest.mark.parametrize(
    ("finding", "holds", "text"),
    [
        (Finding("a", 1.0, 0.5, 2.0), True, "a: 1 (0.5 to 2), holds"),
        (Finding("a", 3.0, high=2.0), False, "a: 3 (at most 2), does NOT hold"),
        (Finding("a", 3.0, low=2.0), True, "a: 3 (at least 2), holds"),
        (Finding("a", math.nan, low=2.0), False, "a: nan (at least 2), does NOT hold"),
    ],
)
def test_findings_say_whether_they_hold(finding, holds, text):
    assert finding.holds is holds
    assert str(finding) == text


def outcome(*, holds: bool) -> Measured:
    return Measured(
        title="One study",
        x_label="steps",
        y_label="loss",
        findings=[Finding("a number", 1.0, low=0.0 if holds else 2.0)],
        curves=[Curve("the curve", [1, 10, 100], [1.0, 0.5, 0.25])],
        log="xy",
    )


def test_figure_has_axes_and_curves(tmp_path):
    draw(outcome(holds=True), tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {words} -->" in text for words in ("One study", "steps", "loss", "the curve"))


@pytest.mark.parametrize("holds", [True, False])
def test_exit_status_says_whether_predictions_hold(holds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(max_margin, "measure", lambda *, seed: outcome(holds=holds))
    assert main(["max-margin", "--out", str(tmp_path)]) == (0 if holds else 1)
    assert "One study: " in capsys.readouterr().out
    assert (tmp_path / "max_margin.svg").exists()


def test_unknown_study_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["max-margn"])
    assert "there is no study 'max-margn'; there are: blind-spots, coherence" in capsys.readouterr().err
