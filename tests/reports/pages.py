"""Runs whose pages are tested, and how to read a page."""

import html
import json
import re
from pathlib import Path

import numpy as np

from bnn.cli import main
from bnn.training import Run
from bnn.training.directory import read_json
from bnn.training.recipe import build, load_recipe, values_from_json

DIGITS = str(Path(__file__).parents[2] / "recipes" / "digits.py")


def made_again(run: Path) -> Run:
    """As its recipe makes it."""
    recipe = load_recipe(Path(DIGITS))
    return build(recipe, values_from_json(recipe, read_json(run / "config.json")["arguments"]))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def report(*words: Path | str) -> str:
    """Writes a page and gives its source."""
    assert main(["report", *map(str, words)]) == 0
    return (Path(words[-1]) if "-o" in words else Path(words[0]) / "report.html").read_text(encoding="utf-8")


def refused(capsys, *words: Path | str, code: int = 1) -> str:
    """The one line with which a command fails."""
    assert main(["report", *map(str, words)]) == code
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(r"bnn: [^\n]+\n", errors)
    return errors


def text(page: str) -> str:
    """What a reader reads, without the markup."""
    page = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def svgs(page: str) -> list[str]:
    return re.findall(r"<svg\b.*?</svg>", page, flags=re.DOTALL)


def figure(page: str, caption: str) -> str:
    """The SVG under a caption that is there once."""
    (svg,) = re.findall(rf"<figcaption>{re.escape(caption)}</figcaption>.*?(<svg\b.*?</svg>)", page, flags=re.DOTALL)
    return svg


def widths(svg: str, color: int) -> list[float]:
    """Lengths of the bars of a colour."""
    shapes = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: var\(--series-{color}\)', svg)
    return [float(np.ptp([float(x) for x in re.findall(r"[ML] (\S+) ", shape)])) for shape in shapes]


def captions(page: str) -> list[str]:
    return [html.unescape(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", page)]


def lines(svg: str, color: int) -> list[np.ndarray]:
    """The points of each curve of a colour, [n, 2]."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none;[^"]*stroke: var\(--series-{color}\)', svg)
    return [np.array(re.findall(r"[ML] (\S+) (\S+)", path), dtype=float) for path in paths]


def rows(page: str, cells: int) -> list[list[str]]:
    """The rows of so many cells of all tables."""
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", page, flags=re.DOTALL)]
    return [[html.unescape(cell) for cell in row] for row in found if len(row) == cells]
