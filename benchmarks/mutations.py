"""How many small faults of the code the tests find: mutants of chosen modules, each tried against its tests.

    python -m benchmarks.mutations [--number 40] [--seed 0] [--modules 'bnn/optim/*' ...] [--jobs 1]

A mutant has one change: a comparison, its equality or an arithmetic operator is another one, a number is one more or
less, a condition is negated, `and` is `or`, an argument that is given by name is left out. Mutants are drawn at random
from all that the modules have. Each is written into a temporary copy of the tree, where the tests that cover its module
run; it is killed where one fails or they take too long, and survives where all pass. A survivor is a place that no test
looks at, or a change that changes nothing: one has to read it.

Modules are named by patterns of their paths, by default all of `COVERED`, whose results matter most. Tests that
fail without any mutant end the run.
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
    "bnn/random/*.py": "tests/random tests/optim/test_randomness.py tests/data/test_batches.py tests/data/test_arrays.py",
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
_OTHERS: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.LShift: [ast.RShift],
    ast.RShift: [ast.LShift],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.BitXor: [ast.BitAnd],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}
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
            for other in _OTHERS[type(operator)]:
                yield "ops", [*node.ops[:place], other(), *node.ops[place + 1 :]]
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        for other in _OTHERS.get(type(node.op), []):
            yield "op", other()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "value", node.value + 1
        yield "value", node.value - 1
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield "test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operand", ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Call):
        for place in range(len(node.keywords)):
            yield "keywords", node.keywords[:place] + node.keywords[place + 1 :]


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
    """Whether tests pass in a tree, and within a time.

    Raises:
        SystemExit: they cannot be run at all.
    """
    # Without bytecode, which would stand for a module of the same second and size.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        run = subprocess.run(
            command, cwd=tree, env={**environment, "CI": "1"}, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return False
    if run.returncode in (4, 5):
        raise SystemExit(f"there are no tests to run in {' '.join(tests)}: mend COVERED of benchmarks/mutations.py")
    return run.returncode == 0
