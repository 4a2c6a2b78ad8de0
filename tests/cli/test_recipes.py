"""`bnn recipes`, and the names of recipes on the command line."""

import re
from pathlib import Path

import pytest

from bnn.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run


def test_every_recipe_is_listed_with_what_it_is(call):
    code, output, _ = call("recipes")
    assert code == 0
    for path in RECIPES.glob("*.py"):
        assert re.search(rf"^{path.stem} +[A-Z]", output, re.MULTILINE)


def test_a_copy_can_be_trained(call):
    assert call("recipes", "copy", "digits")[1] == "recipe: digits.py; train it with `bnn train digits.py`\n"
    assert Path("digits.py").read_bytes() == (RECIPES / "digits.py").read_bytes()
    assert "--hidden-layers" in call("train", "digits.py", "--help")[1]
    assert call("recipes", "copy", "digits", "-o", "mine.py")[0] == 0
    Path("digits.py").write_text("changed")
    code, _, errors = call("recipes", "copy", "digits")
    assert code == 1
    assert errors.startswith("bnn: digits.py cannot be written: File exists: name another file with -o")
    assert Path("digits.py").read_text() == "changed"


def test_a_recipe_goes_by_its_name_anywhere(call):
    assert call("train", "digits", "--help") == call("train", "digits", "--help")
    assert "usage: bnn train digits" in call("train", "digits", "--help")[1]
    assert call("train", "digits", "--epochs", "1", "--width", "8", "--hidden-layers", "1", "--out", "run")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("train", "digit"), 1, "digit is not a recipe, but there is 'digits': name one of arrays, binary, "),
        (("train", "recipes/mnst.py"), 1, "recipes/mnst.py is not a recipe, but there is 'mnist'"),
        (("train", "zzz"), 1, "zzz is not a recipe: name one of"),
        (("recipes", "copy"), 2, "name the recipe to copy"),
        (("recipes", "copy", "digit"), 2, "there is no recipe 'digit', but there is 'digits'"),
        (("recipes", "move", "digits"), 2, "invalid choice"),
    ],
)
def test_wrong_names(words, code, part, call):
    status, _, errors = call(*words)
    assert status == code
    assert re.fullmatch(r"bnn: [^\n]+\n", errors)
    assert part in errors
