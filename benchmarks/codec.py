"""Size of model files beside what general compressors make of the same tensors.

    python -m benchmarks.codec RUN_OR_FILE [RUN_OR_FILE ...] [--json FILE]

A run's newest network is written as `bnn compress` does it; its recipe is executed. A model file is taken as it is.
The tensors of a kind (binary, ternary, of more levels, real) go to each compressor one by one, at its highest setting,
in two forms, of which the shorter result counts: discrete ones as packed digits and as a byte an element, real ones as
they are and with the first bytes of all elements first. The header of the model file is told apart from the tensors; a
compressor's own are in its figure. The entropy of order 0 is that of each tensor's levels by their shares. Zstandard
takes part where the package `zstandard` is installed.
"""

import argparse
import json
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from bnn.cli import main as bnn
from bnn.codec.coding import Entry, decode, pack, symbols
from bnn.codec.container import read

Compressor = Callable[[bytes], bytes]


@dataclass
class Kind:
    """Tensors of one kind, together.

    Attributes:
        elements: how many they have.
        file_bytes: of their payloads in the model file.
        entropy_bits: of order 0; None for real tensors.
        rival_bytes: by compressor.
    """

    elements: int
    file_bytes: int
    entropy_bits: float | None
    rival_bytes: dict[str, int]


def compressors() -> dict[str, Compressor]:
    """The compressors that are installed, by name, at their highest settings."""
    found: dict[str, Compressor] = {
        "zlib": lambda data: zlib.compress(data, 9),
        "xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    }
    if find_spec("zstandard"):
        found["zstd"] = import_module("zstandard").ZstdCompressor(level=22).compress
    return found


def forms(entry: Entry) -> Iterable[bytes]:
    """The plain bytes of a tensor, in two orders."""
    if entry.levels:
        numbers = symbols(entry)
        yield pack(numbers, len(entry.levels))
        yield numbers.tobytes()
    else:
        raw = decode(entry).reshape(-1).view(torch.uint8).numpy().reshape(-1, entry.dtype.itemsize)
        yield raw.tobytes()
        yield raw.T.tobytes()


def kind_of(entry: Entry) -> str:
    """`binary`, `ternary`, `N levels` or `real`."""
    levels = len(entry.levels)
    return {0: "real", 2: "binary", 3: "ternary"}.get(levels, f"{levels} levels")


def compare(path: Path) -> dict[str, Kind]:
    """The tensors of a model file by kind."""
    kinds: dict[str, Kind] = {}
    rivals = compressors()
    for entry in read(path):
        kind = kinds.setdefault(kind_of(entry), Kind(0, 0, 0.0 if entry.levels else None, dict.fromkeys(rivals, 0)))
        kind.elements += entry.size
        kind.file_bytes += len(entry.payload)
        if kind.entropy_bits is not None:
            counts = np.bincount(symbols(entry))
            counts = counts[counts > 0]
            kind.entropy_bits += float((counts * np.log2(counts.sum() / counts)).sum())
        plain = list(forms(entry))
        for name, compress in rivals.items():
            kind.rival_bytes[name] += min(len(compress(data)) for data in plain)
    return kinds


def bits(kind: Kind) -> dict[str, float]:
    """Bits an element, by the name of a column."""
    each = {".bnnz": 8 * kind.file_bytes / kind.elements}
    if kind.entropy_bits is not None:
        each["order 0"] = kind.entropy_bits / kind.elements
    return each | {name: 8 * size / kind.elements for name, size in kind.rival_bytes.items()}


def report(name: str, path: Path) -> dict[str, object]:
    """Prints the table of a model file and returns it as JSON values."""
    kinds = compare(path)
    columns = [".bnnz", "order 0", *compressors()]
    payload = sum(kind.file_bytes for kind in kinds.values())
    size = path.stat().st_size
    print(f"\n{name}: {size:,} bytes, {size - payload:,} of them header and table; bits an element:")
    print(f"{'kind':<12}{'elements':>12}" + "".join(f"{column:>10}" for column in columns))
    for label, kind in kinds.items():
        each = bits(kind)
        cells = (f"{each[column]:>10.4f}" if column in each else f"{'':>10}" for column in columns)
        print(f"{label:<12}{kind.elements:>12,}" + "".join(cells))
    return {
        "file_bytes": size,
        "header_bytes": size - payload,
        "kinds": {label: {"elements": kind.elements, "bits": bits(kind)} for label, kind in kinds.items()},
    }


def main() -> None:
    """Runs the comparison that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__.splitlines()[0])
    parser.add_argument("paths", metavar="RUN_OR_FILE", nargs="+", type=Path, help="a run's directory or a model file")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(options.paths):
            file = path
            if path.is_dir():
                file = Path(folder) / f"{number}.bnnz"
                if code := bnn(["compress", str(path), "-o", str(file)]):
                    raise SystemExit(code)
            reports[str(path)] = report(str(path), file)
    if options.json:
        options.json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
