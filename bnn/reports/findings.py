"""The findings of a diagnosis: as figures, and as a file of a run's directory that its report takes up."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bnn.errors import RunError
from bnn.posttraining.diagnosis import Finding, Row
from bnn.reports.figures import bars
from bnn.training import directory

DIAGNOSIS = "diagnosis.json"
_MOST_FINDINGS, _MOST_ROWS = 64, 4096


def figure_of(finding: Finding) -> str:
    """Its bars, an SVG element."""
    return bars(
        [row.name for row in finding.rows],
        [[row.value for row in finding.rows]],
        [row.text for row in finding.rows],
        salt=finding.title,
    )


def save_findings(findings: Sequence[Finding], run: Path) -> None:
    """Writes the findings into a run's directory, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    text = json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=1)
    directory.replace_file(run / DIAGNOSIS, text)


def read_findings(run: Path) -> list[Finding]:
    """What `save_findings` has written; none where there is no such file.

    Raises:
        RunError: the file is damaged.
    """
    path = run / DIAGNOSIS
    if not path.exists():
        return []
    found = directory.read_json(path)
    try:
        return [_finding(values) for values in found["findings"][:_MOST_FINDINGS]]
    except (LookupError, TypeError, ValueError, OverflowError):
        raise RunError(f"{path} is damaged: write it anew with `bnn diagnose {run}`") from None


def _finding(values: dict[str, Any]) -> Finding:
    rows = values["rows"]
    if not isinstance(rows, list) or not 0 < len(rows) <= _MOST_ROWS:
        raise ValueError("rows")
    made = [Row(str(row["name"]), float(row["value"]), str(row["text"])) for row in rows]
    if not all(0 <= row.value < math.inf for row in made):
        raise ValueError("a value")
    return Finding(str(values["title"]), made, str(values["advice"]), str(values["limit"]))
