"""The drawing of the house, from the imports of the source: python docs/house.py writes docs/house.svg.

A room is a package or a module; it may import from the floors below its own, and rooms of one floor do not import each
other. `tests/test_architecture.py` holds the source to the list here.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("bnn", "hwsim", "recipes")

FLOORS: list[list[str]] = [
    ["bnn.errors"],
    ["bnn.files", "bnn.random"],
    ["bnn.ops", "bnn.data"],
    ["bnn.bits"],
    ["bnn.quantizers", "bnn.distributed"],
    ["bnn.weights"],
    ["bnn.layers", "bnn.optim"],
    ["bnn.models"],
    ["bnn.codec"],
    ["bnn.training", "bnn.export"],
    ["bnn.methods", "bnn.presets", "bnn.cost"],
    ["bnn.cost.energy", "bnn.cost.memory"],
    ["bnn.cost.meters", "bnn.posttraining", "hwsim.devices"],
    ["bnn.reports", "hwsim"],
    ["bnn.cli", "hwsim.studies"],
    ["hwsim.cli"],
    ["recipes"],
]
"""The rooms, from the ground up."""

WHAT = {
    "bnn.errors": "what users can mend",
    "bnn.files": "read within bounds",
    "bnn.random": "named streams, rounding",
    "bnn.ops": "operations on bits",
    "bnn.bits": "BitTensor",
    "bnn.distributed": "several processes",
    "bnn.quantizers": "of values and gradients",
    "bnn.weights": "where a weight lives",
    "bnn.layers": "layers and blocks",
    "bnn.optim": "optimizers of few bits",
    "bnn.models": "networks",
    "bnn.data": "data sets and batches",
    "bnn.training": "the step, the loop",
    "bnn.methods": "published methods",
    "bnn.presets": "standard, edge, edge-min",
    "bnn.codec": "model files",
    "bnn.export": "C and ONNX",
    "bnn.cost": "counts and storage",
    "bnn.cost.memory": "predicted, measured",
    "bnn.cost.energy": "ledger and prices",
    "bnn.cost.meters": "what a run adds up",
    "bnn.posttraining": "fewer bits, fewer channels",
    "bnn.reports": "tables and pages",
    "bnn.cli": "the command line",
    "hwsim": "junctions as weights",
    "hwsim.devices": "physics",
    "hwsim.studies": "sweeps",
    "hwsim.cli": "its command line",
    "recipes": "experiments",
}
"""A few words on each."""

ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@cache
def sources() -> list[Path]:
    """Every Python file that lives in a room, or is a door of one: an `__init__` of the packages, or a `__main__`."""
    return sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py"))


def module_of(path: Path) -> str:
    """Dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The room of a module, by the longest name that fits; None for the packages' own doors."""
    if module in ("bnn", "bnn.__main__", "hwsim.__main__"):
        return None
    fitting = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


@cache
def imported(path: Path, *, types_too: bool = True) -> tuple[str, ...]:
    """Every module of the house that a file imports, wherever in it.

    Args:
        path: of the file.
        types_too: whether what is imported for types alone counts.
    """
    modules, found = _modules(), []
    for node in _nodes(tree_of(path), types_too):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            assert node.level == 0, f"{path} imports relatively"
            # `from bnn.training import checkpoint` imports a module, `from bnn.training import Run` a name of one.
            names = [f"{node.module}.{name.name}" for name in node.names]
            names = [name if name in modules else str(node.module) for name in names]
        found += [name for name in names if name.split(".")[0] in (*TOPS, "benchmarks", "tests")]
    return tuple(found)


@cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _modules() -> frozenset[str]:
    return frozenset(map(module_of, sources()))


def _nodes(tree: ast.AST, types_too: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif types_too or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _nodes(node, types_too)


def arrows() -> set[tuple[str, str]]:
    """Which room imports which other one."""
    found = set()
    for path in sources():
        room = room_of(module_of(path))
        for module in imported(path):
            other = room_of(module)
            if room and other and room != other:
                found.add((room, other))
    return found


def drawn(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows without those that follow from others, for the eye."""
    below: dict[str, set[str]] = {}
    for room in sorted(ROOMS, key=lambda room: ROOMS[room]):
        direct = {other for one, other in found if one == room}
        below[room] = direct.union(*(below[other] for other in direct))
    return {(a, b) for a, b in found if not any((a, c) in found and b in below[c] for c in ROOMS if c not in (a, b))}


_WIDTH, _HEIGHT, _GAP, _RISE = 176, 40, 28, 66


def svg() -> str:
    """The drawing: the ground floor at the bottom, an arrow from each room to what it imports."""
    widest = max(map(len, FLOORS))
    total = widest * (_WIDTH + _GAP) + _GAP
    height = len(FLOORS) * _RISE + _GAP
    centre = {}
    for floor, rooms in enumerate(FLOORS):
        left = (total - len(rooms) * (_WIDTH + _GAP) + _GAP) / 2
        for place, room in enumerate(rooms):
            centre[room] = left + place * (_WIDTH + _GAP) + _WIDTH / 2, height - _RISE * (floor + 1) + _HEIGHT / 2
    lines = []
    for one, other in sorted(drawn(arrows())):
        (x1, y1), (x2, y2) = centre[one], centre[other]
        start, end = y1 + _HEIGHT / 2, y2 - _HEIGHT / 2 - 4
        bend = (end - start) / 2
        lines.append(
            f'<path d="M{x1:.0f} {start:.0f} C{x1:.0f} {start + bend:.0f} {x2:.0f} {end - bend:.0f} {x2:.0f} {end:.0f}"'
            ' fill="none" stroke="#7a8699" stroke-width="1.2" marker-end="url(#tip)"/>'
        )
    for room, (x, y) in centre.items():
        colour = {"bnn": "#e8f0fb", "hwsim": "#fdf0e0"}.get(room.split(".")[0], "#edf5ea")
        lines.append(
            f'<rect x="{x - _WIDTH / 2:.0f}" y="{y - _HEIGHT / 2:.0f}" width="{_WIDTH}" height="{_HEIGHT}" rx="5"'
            f' fill="{colour}" stroke="#3c4a5e"/>'
            f'<text x="{x:.0f}" y="{y - 3:.0f}" font-weight="600">{room}</text>'
            f'<text x="{x:.0f}" y="{y + 12:.0f}" font-size="10.5">{WHAT[room]}</text>'
        )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" font-family="sans-serif"'
        ' font-size="13" text-anchor="middle">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="3" refY="3" orient="auto">'
        '<path d="M0 0L6 3L0 6z" fill="#7a8699"/></marker></defs>',
    )
    return "\n".join((*head, *lines, "</svg>", ""))


if __name__ == "__main__":
    (ROOT / "docs" / "house.svg").write_text(svg(), encoding="utf-8")
