"""The API reference, from the docstrings: python docs/reference.py writes docs/api/, one page a module."""

import importlib
import pkgutil
from pathlib import Path

import pdoc

PACKAGES = ("bnn", "hwsim")


def modules() -> list[str]:
    """Every module, but for the doors of the command lines."""
    found = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        found += [package, *(module.name for module in pkgutil.walk_packages(path, f"{package}."))]
    return [name for name in found if not name.endswith(("__main__", "._native"))]


def write(folder: Path, names: list[str]) -> None:
    """Writes the pages of some modules."""
    # Imported here, since pdoc stands in for parts of the standard library while it imports, which torch does not bear.
    for name in names:
        module = importlib.import_module(name)
        # Names that a package imports when they are first used.
        vars(module).update({public: getattr(module, public) for public in getattr(module, "__all__", ())})
    pdoc.render.configure(docformat="google", show_source=False, footer_text="bnn-edge")
    pdoc.pdoc(*names, output_directory=folder)


if __name__ == "__main__":
    write(Path(__file__).parent / "api", modules())
