"""How many small faults of the code the tests find: mutants of chosen modules, each tried against its tests.

    python -m benchmarks.mutations [--number 40] [--seed 0] [--modules 'bnn/optim/*' ...]

Mutants (`benchmarks.mutants`) are drawn at random from all that the modules have. Each is written into a temporary copy
of the tree, where the tests of its module run, first the file that mirrors it, then those of `COVERED`; it is killed
where one fails or they take too long, and survives where all pass. A survivor is a place that no test looks at, or a
change that changes nothing: one has to read it. A mutant takes seconds to a minute.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.mutants import Mutant, mutants

ROOT = Path(__file__).parents[1]
COVERED = {
    "bnn/random/*.py": "tests/random tests/optim/test_randomness.py",
    "bnn/optim/*.py": "tests/optim"
    " tests/ops/test_adam_by_signs.py tests/ops/test_adam_by_values.py tests/ops/test_step_by_signs.py",
    "bnn/quantizers/*.py": "tests/quantizers tests/test_contracts.py",
    "bnn/quantizers/gradients/*.py": "tests/quantizers tests/test_contracts.py",
    "bnn/weights/*.py": "tests/weights tests/optim/test_dst.py tests/test_contracts.py",
    "bnn/layers/block.py": "tests/layers/test_block.py",
    "bnn/layers/binary_norm.py": "tests/layers/test_binary_norm.py tests/layers/test_block.py",
    "bnn/ops/rounding.py": "tests/ops/test_rounding.py tests/ops/test_operation.py",
    "bnn/ops/norms.py": "tests/ops/test_norms.py tests/layers/test_binary_norm.py tests/ops/test_operation.py",
    "bnn/methods/*.py": "tests/methods",
    "bnn/presets.py": "tests/test_presets.py",
    "bnn/training/step.py": "tests/training/test_slices.py tests/training/test_precision.py"
    " tests/training/test_nonfinite.py tests/training/test_step.py",
    "bnn/training/schedules.py": "tests/training/test_schedules.py",
    "bnn/cost/energy/*.py": "tests/cost/energy",
    "bnn/cost/memory/budget.py": "tests/cost/memory/test_budget.py",
    "bnn/codec/rans.py": "tests/codec/test_rans.py",
    "bnn/codec/context.py": "tests/codec/test_context.py",
    "hwsim/synapse.py": "tests/hwsim/test_synapse.py tests/hwsim/test_store.py",
    "hwsim/write_schemes.py": "tests/hwsim/test_write_schemes.py tests/hwsim/test_store.py",
    "hwsim/nonidealities.py": "tests/hwsim/test_nonidealities.py tests/hwsim/test_store.py",
}
# Its processes begin with what all tests import and no mutant changes.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["torch", "pytest"])


def tests_of(path: str) -> list[str]:
    """The tests that cover a module, by the last of the patterns that name it."""
    return next(tests.split() for pattern, tests in reversed(COVERED.items()) if fnmatch(path, pattern))


def mirror_of(path: str, tree: Path) -> list[str]:
    """The file of tests that mirrors a module, if a tree has one."""
    mirror = Path("tests", path.removeprefix("bnn/")).with_name(f"test_{Path(path).name}")
    return [mirror.as_posix()] if (tree / mirror).exists() else []


def covered(root: Path, patterns: list[str]) -> list[str]:
    """The modules of `COVERED` in a tree whose path fits one of some patterns."""
    paths = sorted({path.relative_to(root).as_posix() for pattern in COVERED for path in root.glob(pattern)})
    return [path for path in paths if any(fnmatch(path, pattern) for pattern in patterns)]


def fate(mutant: Mutant, tree: Path, limit_s: float | None = None) -> str:
    """Tries a mutant in a tree, which is as before afterwards: `killed`, `timeout` or `survived`."""
    module = tree / mutant.path
    original = module.read_text(encoding="utf-8")
    process = _PROCESSES.Process(target=_test, args=(tree, mirror_of(mutant.path, tree), tests_of(mutant.path)))
    try:
        module.write_text(mutant.source, encoding="utf-8")
        process.start()
        process.join(limit_s)
        if process.is_alive():
            process.kill()
            process.join()
            return "timeout"
    finally:
        module.write_text(original, encoding="utf-8")
    return "killed" if process.exitcode else "survived"


def _test(tree: Path, first: list[str], others: list[str]) -> None:
    """Runs files of tests of a tree in this process, then others, and ends it with what the first failure ends with."""
    import pytest

    os.chdir(tree)
    sys.path.insert(0, str(tree))
    # Without new bytecode, which would stand for a later module of the same second and size.
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
    sys.dont_write_bytecode = True
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    # hypothesis refuses to run a test twice.
    others = [test for test in others if test not in first]
    groups = (first, [*others, *(f"--ignore={test}" for test in first)] if others else [])
    ends = (pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]) for tests in groups if tests)
    os._exit(next((int(end) for end in ends if end), 0))


def check_imports(path: str, tree: Path) -> None:
    """Raises SystemExit where the tests of a module pass although it cannot be imported."""
    if fate(Mutant(path, 0, "all", "raise RuntimeError"), tree) == "survived":
        raise SystemExit(f"{' '.join(tests_of(path))} do not import {path} of the copy: is it installed elsewhere?")


def time_limit_s(path: str, tree: Path) -> float:
    """How long the tests of a module may take with a mutant in it: three times what they take without, and 20 s.

    Raises:
        SystemExit: they fail without a mutant.
    """
    started_at = time.monotonic()
    if fate(Mutant(path, 0, "none", (ROOT / path).read_text(encoding="utf-8")), tree) != "survived":
        raise SystemExit(f"{' '.join(tests_of(path))} fail without any mutant: mend them first")
    return 20 + 3 * (time.monotonic() - started_at)


def run(drawn: list[Mutant]) -> Counter[str]:
    """Tries mutants, prints the fate of each, and counts them."""
    counts: Counter[str] = Counter()
    limits: dict[str, float] = {}  # by the tests
    with tempfile.TemporaryDirectory() as folder:
        ignored = shutil.ignore_patterns(".*", "runs", "build", "dist")
        tree = Path(shutil.copytree(ROOT, Path(folder) / "tree", ignore=ignored))
        check_imports(drawn[0].path, tree)
        for mutant in drawn:
            tests = " ".join(tests_of(mutant.path))
            if tests not in limits:
                limits[tests] = time_limit_s(mutant.path, tree)
            end = fate(mutant, tree, limits[tests])
            counts[end] += 1
            print(f"{end:<10}{mutant.path}:{mutant.line}  {mutant.change}", flush=True)
    return counts


def main() -> None:
    """Draws and tries as many mutants as the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=40, help="of mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--modules", nargs="+", default=["*"], metavar="PATTERN", help="of paths: 'bnn/optim/*'")
    options = parser.parse_args()
    paths = covered(ROOT, options.modules)
    found = [mutant for path in paths for mutant in mutants(path, (ROOT / path).read_text(encoding="utf-8"))]
    if not found:
        raise SystemExit(f"no module fits {' '.join(options.modules)}; there are: {' '.join(covered(ROOT, ['*']))}")
    chosen = sorted(random.Random(options.seed).sample(range(len(found)), min(options.number, len(found))))
    counts = run([found[place] for place in chosen])
    killed = f"{counts['killed'] + counts['timeout']} of {len(chosen)} mutants killed ({counts['timeout']} by timeout)"
    print(f"{killed}, of {len(found)} of {len(paths)} modules")


if __name__ == "__main__":
    main()
