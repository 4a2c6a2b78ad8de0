"""`bnn train` of recipes that cannot be used."""

from pathlib import Path

import pytest

from tests.cli.command_line import assert_one_line, recipe


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("def recipe(:", ["mine.py cannot be executed: SyntaxError"]),
        ("import nothing_of_this_name", ["cannot be executed: ModuleNotFoundError", "nothing_of_this_name"]),
        ("raise RuntimeError('first\\nsecond')", ["cannot be executed: RuntimeError: first second"]),
        ("rezept = 1", ["has no function `recipe`"]),
        ("recipe = 1", ["has no function `recipe`"]),
        ("class recipe: pass", ["has no function `recipe`"]),
        ("def recipe(*, width=3): return run()", ["parameter width of recipe has no type"]),
        ("def recipe(*, width: 'Width' = 3): return run()", ["mine.py", "'Width' is not defined"]),
        ("def recipe(*, out: str = ''): return run()", ["a parameter of the name of an option of every run", "--out"]),
        ("def recipe(*, device: str = ''): return run()", ["of the name of an option of every run", "--device"]),
        ("def recipe(*, help: str = ''): return run()", ["parameter help of recipe cannot be an option"]),
        ("def recipe(): return 5", ["must return a bnn.training.Run, not int"]),
        ("def recipe(): return None", ["must return a bnn.training.Run, not NoneType"]),
        ("def recipe(): return {}['x']", ["mine.py: KeyError: 'x'"]),
        ("def recipe(): raise RuntimeError('first\\nsecond')", ["mine.py: RuntimeError: first\n"]),
        ("def recipe(): return Path('gone').read_text()", ["mine.py: FileNotFoundError", "gone"]),
        ("def recipe(): raise MemoryError", ["out of memory"]),
        ("def recipe(x: int = 1, /): return run()", ["mine.py: TypeError"]),
        ("def recipe(*, x: float = float('inf')): return run()", ["the value of x cannot be kept"]),
        ("def recipe(*, x: list[Path] = [Path('a')]): return run()", ["the value of x cannot be kept"]),
        ("def recipe(): return run(model=nn.Flatten())", ["mine.py: ValueError: optimizer got an empty"]),
        ("def recipe(): return run(model=nn.Linear(3, 3))", ["fails on a batch of [200, 1, 8, 8]"]),
        (
            "def recipe(): return run(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))",
            ["fails on a batch of [200, 1, 8, 8]", "out of bounds"],
        ),
    ],
)
def test_recipe_that_cannot_be_used(source, parts, bnn):
    assert_one_line(bnn("train", recipe(source), "--out", "run"), *parts)


@pytest.mark.parametrize("path", ["gone.py", ".", "notes.txt"])
def test_recipe_that_is_no_file(path, bnn):
    Path("notes.txt").write_text("")
    assert_one_line(bnn("train", path), f"{path} is not a recipe", "name one of arrays, binary, ")


def test_recipe_without_a_required_option(bnn):
    assert_one_line(bnn("train", recipe("def recipe(*, width: int): return run()")), "width", code=2)


def test_recipe_may_define_dataclasses(bnn):
    Path("mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Size:\n    width: int = 3\n\ndef recipe(*, width: int = 3): return Size(width)\n"
    )
    assert_one_line(bnn("train", "mine.py"), "must return a bnn.training.Run, not Size")
