"""`bnn compress`, `bnn decompress` and `bnn inspect`: model files."""

from __future__ import annotations

import sys
from pathlib import Path

from bnn.cli.arguments import ArgumentParser
from bnn.cli.trainer import model_file, require_finite


def compress(arguments: list[str]) -> None:
    """Writes a run's network as a model file."""
    parser = ArgumentParser(prog="bnn compress", description="Writes a run's newest network as a small file.")
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of the run")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help="the file, such as model.bnnz")
    parser.add_argument("--floats", choices=("float16", "bfloat16"), help="narrow what is not binary or ternary")
    _add_memory_option(parser)
    options = parser.parse_args(arguments)
    path = model_file(options.run)
    import torch
    from rich.console import Console

    from bnn.codec import commands
    from bnn.codec.model import load_tensors

    require_finite(load_tensors(path, memory_limit_bytes=sys.maxsize), path)
    float_dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(options.floats)
    memory_bytes = options.memory_mib << 20
    commands.compress(Console(), path, options.out, float_dtype=float_dtype, memory_limit_bytes=memory_bytes)


def decompress(arguments: list[str]) -> None:
    """Writes the tensors of a model file to a directory."""
    parser = ArgumentParser(prog="bnn decompress", description="Writes the tensors of a model file as safetensors.")
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="an empty or new directory")
    _add_file_options(parser)
    options = parser.parse_args(arguments)
    from bnn.codec import commands

    commands.decompress(options.file, options.out, memory_limit_bytes=options.memory_mib << 20)
    print(f"tensors: {options.out / commands.TENSORS}")


def inspect(arguments: list[str]) -> None:
    """Lists the tensors of a model file."""
    parser = ArgumentParser(prog="bnn inspect", description="Lists the tensors of a model file with their bits.")
    parser.add_argument("--json", action="store_true", help="as JSON")
    _add_file_options(parser)
    options = parser.parse_args(arguments)
    from rich.console import Console

    from bnn.codec import commands

    commands.inspect(Console(), options.file, as_json=options.json, memory_limit_bytes=options.memory_mib << 20)


def _add_file_options(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a model file (.bnnz)")
    _add_memory_option(parser)


def _add_memory_option(parser: ArgumentParser) -> None:
    parser.add_argument("--memory-mib", type=int, default=1024, help="what its tensors may take (default: %(default)s)")
