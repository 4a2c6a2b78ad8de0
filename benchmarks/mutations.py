"""How many small faults of the code the tests find: mutants of chosen modules, each tried against its tests.

    python -m benchmarks.mutations [--number 40] [--seed 0] [--modules 'bnn/optim/*' ...] [--jobs 1]

A mutant has one change: a comparison, its equality or an arithmetic operator is another one, a number is one more or
less, a condition is negated, `and` is `or`, an argument that is given by name is left out. Mutants are drawn at random
from all that the modules have. Each is written into a temporary copy of the tree, where the tests that cover its module
run; it is killed where one fails or they take too long, and survives where all pass. A survivor is a place that no test
looks at, or a change that changes nothing: one has to read it.

Modules are named by patterns of their paths, by default all of `COVERED`, whose results matter most. Before the mutants
of a module, its tests have to pass without one, and to fail where the module cannot be imported. A mutant takes as long
as the tests of its room, seconds to a minute.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[1]
COVERED = {
    "bnn/random/*.py": "tests/random tests/optim/test_randomness.py tests/data/test_batches.py",
    "bnn/optim/*.py": "tests/optim",
    "bnn/quantizers/*.py": "tests/quantizers tests/test_contracts.py",
    "bnn/quantizers/gradients/*.py": "tests/quantizers",
    "bnn/weights/*.py": "tests/weights tests/optim/test_dst.py",
    "bnn/methods/*.py": "tests/methods",
    "bnn/training/step.py": "tests/training",
    "bnn/training/schedules.py": "tests/training/test_schedules.py",
    "bnn/cost/energy/*.py": "tests/cost/energy",
    "bnn/codec/rans.py": "tests/codec/test_rans.py",
    "bnn/codec/context.py": "tests/codec/test_context.py",
    "hwsim/synapse.py": "tests/hwsim/test_synapse.py",
    "hwsim/write_schemes.py": "tests/hwsim/test_write_schemes.py",
}
# Operators that a mutant swaps, by their names in `ast`.
_SWAPS = """Lt LtE, Lt GtE, Gt GtE, Gt LtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, Mult Pow,
    FloorDiv Mod, LShift RShift, BitAnd BitOr, BitXor BitAnd"""
_PAIRS = [(getattr(ast, one), getattr(ast, other)) for one, other in (pair.split() for pair in _SWAPS.split(","))]
_ANNOTATIONS = {"annotation", "returns"}


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    path: str
    line: int
    change: str
    """Before -> after."""
    source: str
    """Of the changed module."""


def mutants(path: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its code."""
    tree = ast.parse(source)
    found = []
    for node in list(_code(tree)):
        for name, value in _changes(node):
            original, before = getattr(node, name), _shown(node)
            setattr(node, name, value)
            changed = ast.unparse(ast.fix_missing_locations(tree))
            found.append(Mutant(path, node.lineno, f"{before}  ->  {_shown(node)}", changed))  # type: ignore[attr-defined]
            setattr(node, name, original)
    return found


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one, but for those of annotations and of text with values in it."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr) and name not in _ANNOTATIONS:
                yield from _code(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """The fields of a node that a mutant has otherwise, with their other values."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _others(operator):
                yield "ops", [*node.ops[:place], other, *node.ops[place + 1 :]]
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        for other in _others(node.op):
            yield "op", other
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "value", node.value + 1
        yield "value", node.value - 1
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(node.test, ast.UnaryOp):
        yield "test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operand", ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Call):
        for place in range(len(node.keywords)):
            yield "keywords", node.keywords[:place] + node.keywords[place + 1 :]


def _others(operator: ast.AST) -> list[ast.AST]:
    return [b() if isinstance(operator, a) else a() for a, b in _PAIRS if isinstance(operator, (a, b))]


def _shown(node: ast.AST) -> str:
    return ast.unparse(node.test if isinstance(node, (ast.If, ast.While)) else node)


def tests_of(path: str) -> list[str]:
    """The tests that cover a module, by the last of the patterns that name it."""
    return next(tests.split() for pattern, tests in reversed(COVERED.items()) if fnmatch(path, pattern))


def covered(root: Path, patterns: list[str]) -> list[str]:
    """The modules of `COVERED` in a tree whose path fits one of some patterns."""
    paths = sorted({path.relative_to(root).as_posix() for pattern in COVERED for path in root.glob(pattern)})
    return [path for path in paths if any(fnmatch(path, pattern) for pattern in patterns)]


def copy_tree(root: Path, to: Path) -> Path:
    """Copies what a run of the tests needs."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "runs", "build", "dist")
    return Path(shutil.copytree(root, to, ignore=ignored))


def passes(tree: Path, tests: list[str], limit_s: float | None = None) -> bool:
    """Whether tests are there and pass in a tree, within a time."""
    # Without bytecode, which would stand for a module of the same second and size.
    settings = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "CI": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        run = subprocess.run(command, cwd=tree, env={**os.environ, **settings}, capture_output=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def survives(mutant: Mutant, trees: "Queue[Path]", limit_s: float | None = None) -> bool:
    """Tries a mutant in one of several trees, which is as before afterwards; whether its tests pass all the same."""
    tree = trees.get()
    module = tree / mutant.path
    original = module.read_text(encoding="utf-8")
    try:
        module.write_text(mutant.source, encoding="utf-8")
        return passes(tree, tests_of(mutant.path), limit_s)
    finally:
        module.write_text(original, encoding="utf-8")
        trees.put(tree)


def time_limit_s(path: str, trees: "Queue[Path]") -> float:
    """How long the tests of a module may take with a mutant in it: three times what they take without, and 20 s.

    Raises:
        SystemExit: they fail without a mutant, or pass with a module that cannot be imported.
    """
    started_at = time.monotonic()
    if not survives(Mutant(path, 0, "none", (ROOT / path).read_text(encoding="utf-8")), trees):
        raise SystemExit(f"{' '.join(tests_of(path))} fail without any mutant: mend them first")
    limit_s = 20 + 3 * (time.monotonic() - started_at)
    if survives(Mutant(path, 0, "all", "raise RuntimeError"), trees):
        raise SystemExit(f"{' '.join(tests_of(path))} do not import {path} of the copy: is it installed elsewhere?")
    return limit_s


def run(drawn: list[Mutant], jobs: int) -> int:
    """Tries mutants, prints what becomes of each, and returns how many survive."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        trees: Queue[Path] = Queue()
        for job in range(jobs):
            trees.put(copy_tree(ROOT, Path(folder) / str(job)))
        paths = sorted({mutant.path for mutant in drawn})
        limits = dict(zip(paths, pool.map(lambda path: time_limit_s(path, trees), paths), strict=True))
        survivors = 0
        fates = pool.map(lambda mutant: survives(mutant, trees, limits[mutant.path]), drawn)
        for mutant, survived in zip(drawn, fates, strict=True):
            survivors += survived
            fate = "survived" if survived else "killed"
            print(f"{fate:<10}{mutant.path}:{mutant.line}  {mutant.change}", flush=True)
    return survivors


def main() -> None:
    """Draws and tries as many mutants as the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=40, help="of mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument(
        "--modules", nargs="+", default=["*"], metavar="PATTERN", help="of paths, such as 'bnn/optim/*'"
    )
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    options = parser.parse_args()
    paths = covered(ROOT, options.modules)
    found = [mutant for path in paths for mutant in mutants(path, (ROOT / path).read_text(encoding="utf-8"))]
    if not found:
        raise SystemExit(f"no module fits {' '.join(options.modules)}; there are: {' '.join(covered(ROOT, ['*']))}")
    chosen = sorted(random.Random(options.seed).sample(range(len(found)), min(options.number, len(found))))
    survivors = run([found[place] for place in chosen], options.jobs)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed, of {len(found)} of {len(paths)} modules")


if __name__ == "__main__":
    main()
