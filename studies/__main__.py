"""`python -m studies NAME ... [--out FOLDER] [--seed N]`: measures predictions of theory and draws them."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from studies.study import draw

STUDIES = sorted({path.stem for path in Path(__file__).parent.glob("[a-z]*.py")} - {"study"})
"""Names of the studies: those of their files."""


def main(arguments: list[str]) -> int:
    """Runs the studies; the exit status is 1 where a prediction does not hold."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__)
    names = ", ".join(name.replace("_", "-") for name in STUDIES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of {names}")
    parser.add_argument("--out", type=Path, default=Path("runs/studies"), help="folder of the figures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chosen = [name.replace("-", "_") for name in options.names] or STUDIES
    if unknown := sorted(set(chosen) - set(STUDIES)):
        parser.error(f"there is no study {unknown[0].replace('_', '-')!r}; there are: {names}")
    options.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in chosen:
        measured = import_module(f"studies.{name}").measure(seed=options.seed)
        path = options.out / f"{name}.svg"
        draw(measured, path)
        print(f"{measured.title}: {path}")
        for finding in measured.findings:
            print(f"  {finding}")
            failed |= not finding.holds
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
