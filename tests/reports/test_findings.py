"""A diagnosis in a run's directory, which the report of the run takes up."""

import json
from types import SimpleNamespace

import pytest

from bnn.errors import RunError
from bnn.posttraining.diagnosis import Finding, Row
from bnn.reports.findings import DIAGNOSIS, read_findings, save_findings
from bnn.reports.sections import _diagnosis

FINDING = Finding("Depth", [Row("<layer>", 3.0, "3 products")], "Do this.", "It is <not> of the data.")


def test_a_report_has_a_section_of_each_finding(tmp_path):
    assert read_findings(tmp_path) == []
    save_findings([FINDING], tmp_path)
    (found,) = read_findings(tmp_path)
    assert found == FINDING
    (part,) = _diagnosis(SimpleNamespace(findings=[found]))
    assert (part.title, part.alert, part.text) == ("Depth", "Do this.", "It is <not> of the data.")
    assert "&lt;layer&gt;" in part.figures["Depth"]


@pytest.mark.parametrize(
    "damage",
    [
        {"value": -1.0},
        {"value": float("nan")},
        {"value": "much"},
        {"value": None},
        {"value": 10**400},
    ],
)
def test_a_damaged_figure_is_one_line(damage, tmp_path):
    save_findings([FINDING], tmp_path)
    values = json.loads((tmp_path / DIAGNOSIS).read_text())
    values["findings"][0]["rows"][0] |= damage
    (tmp_path / DIAGNOSIS).write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"diagnosis.json is damaged.*"):
        read_findings(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"findings": 3}', '{"findings": [{}]}', '{"findings": {"a": 1}}', "[1]", "{"])
def test_a_file_of_something_else_is_one_line(text, tmp_path):
    (tmp_path / DIAGNOSIS).write_text(text)
    with pytest.raises(RunError, match=r"diagnosis.json is damaged"):
        read_findings(tmp_path)
