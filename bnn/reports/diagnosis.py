"""The page of a diagnosis: each finding with its figure, what to do, and what it cannot say."""

from collections.abc import Sequence
from pathlib import Path

from bnn.posttraining.diagnosis import Finding
from bnn.reports.findings import figure_of
from bnn.reports.page import template_named
from bnn.training import directory


def write_diagnosis(findings: Sequence[Finding], page: Path, *, title: str, about: Sequence[str]) -> None:
    """Writes the page, whole or not at all.

    Args:
        findings: at least one.
        page: the file; an earlier one is replaced.
        title: of the page.
        about: lines that say what the network is and what was looked at.

    Raises:
        RunError: it cannot be written.
    """
    text = template_named("diagnosis.html.jinja").render(
        title=title, about=about, findings=[(finding, figure_of(finding)) for finding in findings]
    )
    directory.replace_file(page, text.encode("utf-8", errors="replace").decode("utf-8"))
