"""`bnn report`: the command; its page has tests in tests/reports."""

from pathlib import Path

import pytest

from bnn.training.directory import read_json
from tests.cli.command_line import DIGITS, QUICK, assert_one_line


def test_report_is_a_page_about_a_run_or_several(bnn):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    for name in ("one", "two"):
        bnn("train", DIGITS, *QUICK, "--out", name)
    code, output, errors = bnn("report", "one")
    assert (code, output, errors) == (0, "page: one/report.html\n", "")
    accuracy = f"{100 * read_json(Path('one/summary.json'))['test_accuracy']:.2f}"
    assert accuracy in Path("one/report.html").read_text()
    assert_one_line(bnn("report", "one", "two"), "-o page.html", code=2)
    assert bnn("report", "one", "two", "-o", "both.html")[0] == 0
    assert Path("both.html").stat().st_size > 0
    assert_one_line(bnn("report", "gone"), "gone/")
    assert_one_line(bnn("report", "one", "-o", "gone/page.html"), "gone")
