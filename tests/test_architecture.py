"""Imports only point down, and the sources keep to a few rules that no linter knows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part of `bnn` may import besides itself. `bnn` alone stands for the package's version.
NUMBERS = {"errors", "rounding", "accumulator", "fixed_point"}
CORE = NUMBERS | {"ops", "bits", "quantizers", "stores", "accumulator_store", "discrete_store", "layers"}
TRAINING = CORE | {"bnn", "data", "models", "optim"}
MAY_IMPORT = {
    "__init__": CORE | {"training"},
    "errors": set(),
    "rounding": {"errors"},
    "allocator": set(),
    "accumulator": set(),
    "fixed_point": {"errors", "rounding", "accumulator"},
    "data": {"errors"},
    "ops": {"errors"},
    "bits": {"errors", "ops"},
    "quantizers": {"errors", "rounding", "ops", "bits"},
    "stores": NUMBERS | {"ops", "bits", "quantizers"},
    "accumulator_store": NUMBERS | {"ops", "bits", "quantizers", "stores"},
    "discrete_store": {"errors", "ops", "bits", "stores"},
    "layers": CORE - {"accumulator_store", "discrete_store"},
    "models": CORE,
    "optim": CORE - {"layers"} | {"data"},
    "training": TRAINING,
    "presets": TRAINING | {"allocator", "training"},
    "accounting": TRAINING | {"training"},
    "codec": {"errors", "bits", "stores"},
    "penalties": {"errors", "stores", "training"},
    "reports": TRAINING | {"training", "accounting"},
    "budget": TRAINING | {"training", "presets", "accounting", "reports"},
    "cli_budget": {"errors", "accounting", "budget"},
    "cli": TRAINING | {"training", "accounting", "reports", "codec", "cli_budget"},
    "__main__": {"cli"},
}

SOURCES = sorted((ROOT / "bnn").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it and for whatever reason."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # `from bnn import data` imports a part; `from bnn.data import digits` a name of one.
            yield from ((f"bnn.{name.name}" for name in node.names) if node.module == "bnn" else [str(node.module)])


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "bnn").parts[0].removesuffix(".py")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_rules_know_every_part():
    assert {part_of(path) for path in SOURCES} == set(MAY_IMPORT), "say above what a new part may import"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_down(path):
    allowed = MAY_IMPORT[part_of(path)] | {part_of(path)}
    for module in imported(path):
        package, *parts = module.split(".")
        assert package not in ("hwsim", "recipes", "tests", "benchmarks"), f"{path} imports {module}"
        if package == "bnn":
            # A compiled module lies beside the parts that call it.
            part = (parts or ["bnn"])[0]
            assert part in allowed or part.startswith("_"), f"{path} imports {module}"


def test_rules_are_without_a_circle():
    done: set[str] = {"bnn"}
    left = {part: parts - {part} for part, parts in MAY_IMPORT.items() if part != "__init__"}
    while ready := {part for part, parts in left.items() if parts <= done}:
        done |= ready
        left = {part: parts for part, parts in left.items() if part not in ready}
    assert not left


# The same of `hwsim`, besides what it takes from `bnn`.
SIMULATOR_MAY_IMPORT = {
    "__init__": set(),
    "devices": set(),
    "synapse": set(),
    "write_schemes": {"devices"},
    "nonidealities": {"devices"},
    "probability_tables": set(),
    "pulses": {"hwsim", "devices", "nonidealities", "probability_tables", "write_schemes"},
    "sampled": {"devices", "nonidealities", "pulses", "write_schemes"},
    "store": {"devices", "nonidealities", "pulses", "sampled", "synapse", "write_schemes"},
    "crossbar": {"store"},
    "prices": {"devices", "store"},
    "meters": {"store"},
    "studies": {"devices", "nonidealities", "write_schemes"},
    "cli": {"devices", "studies", "write_schemes"},
    "__main__": {"cli"},
}
SIMULATOR = sorted((ROOT / "hwsim").rglob("*.py"))


@pytest.mark.parametrize("path", SIMULATOR, ids=relative)
def test_imports_of_the_simulator_point_down(path):
    part = path.relative_to(ROOT / "hwsim").parts[0].removesuffix(".py")
    for module in imported(path):
        package, *parts = module.split(".")
        assert package not in ("recipes", "tests", "benchmarks"), f"{path} imports {module}"
        if package == "hwsim":
            assert (parts or ["hwsim"])[0] in SIMULATOR_MAY_IMPORT[part] | {part}, f"{path} imports {module}"


DEVICES = sorted((ROOT / "hwsim" / "devices").rglob("*.py"))


def test_devices_import_torch_alone():
    for path in DEVICES:
        for module in imported(path):
            assert not module.startswith("bnn"), f"{path} imports {module}"
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


@pytest.mark.parametrize(
    "source", ["import pickle", "from pickle import loads", "torch.load(p)", "f(allow_pickle=True)"]
)
def test_unpickling_is_recognised(source):
    assert any(unpickles(node) for node in ast.walk(ast.parse(source)))
    assert not any(unpickles(node) for node in ast.walk(ast.parse("np.load(p, allow_pickle=False)")))


@pytest.mark.parametrize("folder", ["bnn", "hwsim", "recipes"])
def test_nothing_is_unpickled(folder):
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node.lineno for node in ast.walk(tree) if unpickles(node)], path


@pytest.mark.parametrize("path", [*SOURCES, *SIMULATOR], ids=relative)
def test_every_file_says_what_it_is_and_stays_short(path):
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "a file begins with a line that says what it holds"
    assert len(source.splitlines()) <= 400, "a file can be read in one sitting"
