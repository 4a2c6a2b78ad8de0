"""`bnn recipes`: the recipes of the package."""

from __future__ import annotations

import errno
from pathlib import Path

from bnn.cli.arguments import ArgumentParser, require_choice
from bnn.errors import RecipeError


def recipes(arguments: list[str]) -> None:
    """Lists the recipes of the package, or copies one."""
    parser = ArgumentParser(prog="bnn recipes", description="Lists the recipes, or copies one to be edited.")
    parser.add_argument("copy", nargs="?", choices=("copy",), help="copy a recipe")
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the recipe to copy")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="the copy (default: NAME.py in this folder)")
    options = parser.parse_args(arguments)
    from bnn.files import replacing
    from bnn.training.recipe import recipe_names

    files = recipe_names()
    if options.copy is None:
        _list(files)
        return
    if options.name is None:
        parser.error("name the recipe to copy, as in `bnn recipes copy digits`")
    require_choice("recipe", options.name, files)
    target = options.out or Path(f"{options.name}.py")
    try:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "File exists")
        with replacing(target) as file:
            file.write(files[options.name].read_bytes())
    except OSError as error:
        raise RecipeError(f"{target} cannot be written: {error.strerror or error}: name another file with -o") from None
    print(f"recipe: {target}; train it with `bnn train {target}`")


def _list(files: dict[str, Path]) -> None:
    import ast

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, path in files.items():
        documentation = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        table.add_row(name, Text(documentation.partition("\n")[0]))
    Console().print(table)
