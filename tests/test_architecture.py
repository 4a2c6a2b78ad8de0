"""Imports only point down, and the sources keep to a few rules that no linter knows."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

_SPEC = importlib.util.spec_from_file_location("house", ROOT / "docs" / "house.py")
house = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(house)

SOURCES = house.sources()


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_file_lives_in_a_room_and_the_rooms_are_few():
    doors = {"bnn", "bnn.__main__", "hwsim.__main__"}
    modules = {house.module_of(path) for path in SOURCES}
    assert {module for module in modules if house.room_of(module) is None} == doors
    assert {house.room_of(module) for module in modules - doors} == set(house.ROOMS) == set(house.WHAT)
    assert len(house.ROOMS) <= 29


def points_down(path: Path, module: str) -> bool:
    room, other = house.room_of(house.module_of(path)), house.room_of(module)
    if module.startswith(("tests", "benchmarks")):
        return False
    if room and room.startswith("bnn") and module.startswith(("hwsim", "recipes")):
        return False
    return room is None or other in (None, room) or house.ROOMS[other] < house.ROOMS[room]


# One test of all files: a test of each would take longer to begin than to pass.
def test_imports_point_down():
    assert not [
        f"{relative(path)} imports {module}"
        for path in SOURCES
        for module in house.imported(path)
        if not points_down(path, module)
    ]


@pytest.mark.parametrize("module", ["bnn.cli", "bnn.training.run", "hwsim.store", "recipes.mnist", "tests.contracts"])
def test_imports_that_point_elsewhere_are_recognised(module):
    assert not points_down(ROOT / "bnn" / "optim" / "adam.py", module)
    assert points_down(ROOT / "bnn" / "optim" / "adam.py", "bnn.weights")


def test_modules_import_each_other_without_a_circle():
    left = {
        house.module_of(path): {m for m in house.imported(path, types_too=False) if m != house.module_of(path)}
        for path in SOURCES
        if path.name != "__init__.py"
    }
    left = {module: imported & left.keys() for module, imported in left.items()}
    done: set[str] = set()
    while ready := {module for module, imported in left.items() if imported <= done}:
        done |= ready
        left = {module: imported for module, imported in left.items() if module not in ready}
    assert not left


def test_the_drawing_is_that_of_the_source():
    assert (ROOT / "docs" / "house.svg").read_text(encoding="utf-8") == house.svg(), "make house draws it anew"


DEVICES = sorted((ROOT / "hwsim" / "devices").rglob("*.py"))


def test_devices_import_torch_alone_and_read_by_the_package_s_one_way():
    for path in DEVICES:
        for module in house.imported(path):
            assert not module.startswith("bnn") or module == "bnn.files", f"{path} imports {module}"
            assert not module.startswith("hwsim") or module.startswith("hwsim.devices"), f"{path} imports {module}"


def texts() -> list[Path]:
    folders = [path for name in ("bnn", "hwsim", "recipes", "tests", "benchmarks", "docs") for path in [ROOT / name]]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md", ".h", ".cpp")]
    return sorted([*files, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile"])


# Written so that this file does not hold them.
PLACES = re.compile(r"(?<![\w.])/" + r"(work|root|home)/|\.\./" + "shared")


def test_no_file_names_a_place_of_one_machine():
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in texts()
        if path.exists()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if PLACES.search(line)
    ]
    assert not found


@pytest.mark.parametrize("line", ["x = '/" + "work/main'", "see ../" + "shared/notes", "/" + "home/me"])
def test_places_are_recognised(line):
    assert PLACES.search(line)


def unpickles(node: ast.AST) -> bool:
    """Whether a piece of code could unpickle something."""
    match node:
        case ast.Import(names=names):
            return any(name.name.split(".")[0] in PICKLES for name in names)
        case ast.ImportFrom(module=module):
            return str(module).split(".")[0] in PICKLES
        case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
            return True
        case ast.keyword(arg="allow_pickle", value=ast.Constant(value=value)):
            return value is not False
        case ast.keyword(arg="allow_pickle"):
            return True
    return False


PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# Of which each piece has one, so that few files are looked at more closely.
WORDS = re.compile(r"pickle|\b(dill|joblib|shelve|marshal|load|save)\b")


@pytest.mark.parametrize(
    "source", ["import pickle", "from pickle import loads", "torch.load(p)", "f(allow_pickle=True)"]
)
def test_unpickling_is_recognised(source):
    assert WORDS.search(source)
    assert any(unpickles(node) for node in ast.walk(ast.parse(source)))
    assert not any(unpickles(node) for node in ast.walk(ast.parse("np.load(p, allow_pickle=False)")))


@pytest.mark.parametrize("folder", ["bnn", "hwsim", "recipes"])
def test_nothing_is_unpickled(folder):
    for path in (ROOT / folder).rglob("*.py"):
        if WORDS.search(path.read_text(encoding="utf-8")):
            assert not [node.lineno for node in ast.walk(house.tree_of(path)) if unpickles(node)], path


def test_every_file_says_what_it_is():
    silent = [relative(path) for path in SOURCES if not ast.get_docstring(house.tree_of(path))]
    assert not silent, "a file begins with a line that says what it holds"


def test_every_file_stays_short():
    long = [relative(path) for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert not long, "a file can be read in one sitting"
