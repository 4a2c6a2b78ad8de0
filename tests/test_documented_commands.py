"""The commands of the pages can be typed as they are printed: their recipes, options and values exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bnn.training.recipe import load_recipe, locate_recipe, parse_arguments, recipe_names, recipe_parser

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md"), ROOT / "Makefile"]
# What stands for a value of the reader's.
VALUES = {"DATA": ".", "S": "0", "P": "edge", "V": "recu", "$variant": "recu", "$seed": "0"}
OF_EVERY_RUN = {
    "--out": 1,
    "--device": 1,
    "--tensorboard": 0,
    "--profile-memory": 0,
    "--exchange": 1,
    "--patience": 1,
}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every training in code, as the recipe's name or file and what follows it."""
    names = "|".join(recipe_names())
    for page in PAGES:
        if "docs/api" in str(page):
            continue
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"\\\n\s*", " ", text)
        for line in re.findall(rf"bnn train ((?:recipes/\w+\.py|(?:{names})(?=[\s`]))[^`\n]*)", text):
            arguments = shlex.split(line.split(" #")[0].split(";")[0].replace("$$", "$"), comments=False)
            yield page.name, arguments


COMMANDS = [(page, arguments) for page, arguments in commands() if "--help" not in arguments]


def test_there_are_many():
    assert len(COMMANDS) > 15
    recipes = {Path(arguments[0]).stem for _, arguments in COMMANDS}
    assert recipes >= {"digits", "images", "mnist", "binary", "recu", "gxnor", "mtj"}


@pytest.mark.parametrize(("page", "arguments"), COMMANDS, ids=lambda value: value if isinstance(value, str) else None)
def test_options_of_a_printed_training_exist(page, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(locate_recipe(arguments[0]))
    own, left = [], iter(arguments[1:])
    for word in left:
        if word in OF_EVERY_RUN:
            for _ in range(OF_EVERY_RUN[word]):
                next(left)
        elif word not in ("&&", "then"):
            own.append(VALUES.get(word, word))
        else:
            break
    parse_arguments(recipe_parser(recipe, prog="bnn"), own)
