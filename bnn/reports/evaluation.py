"""What a model makes of a split, printed and as JSON values."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnn.training.evaluation import Evaluation, wilson_interval

_WIDEST_MATRIX = 20
_FEW_CLASSES = 10


def evaluation_figures(found: Evaluation) -> dict[str, Any]:
    """All figures as JSON values; intervals are Wilson's, of 95 %."""
    return {
        "accuracy": found.accuracy,
        "accuracy_top_5": found.within_5 / found.images,
        "interval_95": list(wilson_interval(found.correct, found.images)),
        "loss": found.loss,
        "images": found.images,
        "classes": [
            {
                "class": name,
                "images": images,
                "accuracy": correct / images if images else None,
                "interval_95": list(wilson_interval(correct, images)),
            }
            for name, correct, images in _each(found)
        ],
        "confusion": found.confusion.tolist(),
    }


def print_evaluation(found: Evaluation, when: str, *, confusion: bool = False) -> None:
    """Prints the accuracy with its interval.

    Args:
        found: what to print.
        when: of what the model is, such as the epochs of its training.
        confusion: whether to print the classes, and what was taken for what, as well.
    """
    low, high = wilson_interval(found.correct, found.images)
    # Of few classes it says next to nothing.
    top_5 = f" ({100 * found.within_5 / found.images:.2f} % within five)" if len(found.classes) > _FEW_CLASSES else ""
    print(
        f"test accuracy {100 * found.accuracy:.2f} %{top_5}, loss {found.loss:.4f}, {when}; {found.images:,} examples,"
        f" 95 % interval {100 * low:.2f} to {100 * high:.2f} %"
    )
    if not confusion:
        return
    table = Table(box=SIMPLE_HEAD)
    for column in ("class", "examples", "accuracy", "95 % interval", "most often taken for"):
        table.add_column(column, justify="left" if column in ("class", "most often taken for") else "right")
    for label, (name, correct, images) in enumerate(_each(found)):
        low, high = wilson_interval(correct, images)
        row = found.confusion[label].clone()
        row[label] = 0
        other = f"{found.classes[int(row.argmax())]} ({int(row.max())})" if row.any() else ""
        share = f"{100 * correct / images:.1f} %" if images else "-"
        table.add_row(Text(name), f"{images:,}", share, f"{100 * low:.1f} to {100 * high:.1f} %", Text(other))
    console = Console()
    console.print(table)
    if len(found.classes) > _WIDEST_MATRIX:
        console.print(f"(the matrix of {len(found.classes)} classes is in --json)")
        return
    print("what examples of each class (rows) were taken for (columns):")
    matrix = Table(box=SIMPLE_HEAD)
    matrix.add_column("")
    for name in found.classes:
        matrix.add_column(Text(name), justify="right")
    for name, counts in zip(found.classes, found.confusion.tolist(), strict=True):
        matrix.add_row(Text(name), *map(str, counts))
    console.print(matrix)


def _each(found: Evaluation) -> list[tuple[str, int, int]]:
    """Name, right ones and images of each class."""
    return [
        (name, int(found.confusion[label, label]), int(found.confusion[label].sum()))
        for label, name in enumerate(found.classes)
    ]
