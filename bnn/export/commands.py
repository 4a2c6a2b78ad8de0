"""What `bnn export` does: a model becomes a directory of files, which is whole or not there."""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from bnn.codec import Model
from bnn.export.c_source import Source, c_source
from bnn.export.c_text import read_template
from bnn.export.c_training import c_training
from bnn.export.chain import chain_of
from bnn.export.errors import ExportError
from bnn.export.lowering import NO_SHAPE, program_of
from bnn.export.program import Product, Program
from bnn.optim import LowBitOptimizer


def export_c(
    model: Model,
    directory: Path,
    *,
    name: str = "network",
    example: bool = False,
    input_shape: tuple[int, ...] | None = None,
    fit: int | None = None,
) -> str:
    """Writes a model as C99.

    Args:
        model: see `program_of`.
        directory: new or empty.
        name: of the files, and what the public names begin with.
        example: whether a program and a Makefile are written, too.
        input_shape: see `program_of`.
        fit: the bytes of RAM that its arrays may take; None for any.

    Returns:
        A line on what it takes.

    Raises:
        ExportError: the name is no identifier, layers cannot be exported, its arrays take more than `fit`, or the
            directory cannot be written.
    """
    _check_name(name)
    check_directory(directory)
    program = program_of(model, input_shape)
    source = c_source(program, name=name)
    _check_ram(source, fit)
    texts = {f"{name}.h": source.header, f"{name}.c": source.source}
    if example:
        what = "uint8 pixels" if program.input.kind == "uint8" else "float32 values"
        words = {"name": name, "NAME": name.upper(), "what": f"{program.input.size} {what}"}
        for file, template in (("main.c", "example_main.c"), ("Makefile", "example.mk")):
            texts[file] = Template(read_template(template)).substitute(words)
    write_directory(directory, {file: text.encode() for file, text in texts.items()})
    return (
        f"{binary_weights(program):,} binary weights; flash: {source.constant_bytes:,} bytes of constants, and the"
        f" code; RAM: {source.ram_bytes:,} bytes, and the stack"
    )


def export_c_training(
    model: Model,
    optimizer: LowBitOptimizer,
    directory: Path,
    *,
    batch_size: int,
    largest_batch: int | None = None,
    name: str = "network",
    example: bool = False,
    input_shape: tuple[int, ...] | None = None,
    fit: int | None = None,
) -> str:
    """Writes a model as C99 that learns by steps of the preset `edge-min` or `edge-fast`; as `export_c` otherwise.

    Args:
        model: its network is that of the preset.
        optimizer: the preset's.
        directory: new or empty.
        batch_size: the most examples of a step.
        largest_batch: that goes through the network at once in Python; None for any.
        name: as of `export_c`.
        example: as of `export_c`.
        input_shape: as of `export_c`.
        fit: as of `export_c`.

    Raises:
        ExportError: as of `export_c`; or a batch is too large or has fewer than two examples.
    """
    _check_name(name)
    check_directory(directory)
    takes = model.preprocessing
    shape = input_shape if takes is None else takes.image_shape
    if shape is None:
        raise ExportError(NO_SHAPE)
    if batch_size < 2 or (largest_batch is not None and batch_size > largest_batch):
        most = "" if largest_batch is None else f" to {largest_batch}"
        raise ExportError(f"a step of this network in C takes batches of 2{most} examples, got {batch_size}")
    chain = chain_of(model.network, optimizer, shape)
    source = c_training(chain, preprocessing=takes, classes=model.classes, batch_size=batch_size, name=name)
    _check_ram(source, fit, f", or a --batch-size below {batch_size}" if batch_size > 2 else "")
    texts = {f"{name}.h": source.header, f"{name}.c": source.source}
    if example:
        size = math.prod(shape)
        what = f"{size} float32 values" if takes is None else f"{size} uint8 pixels"
        words = {"name": name, "NAME": name.upper(), "what": what}
        for file, template in (("main.c", "example_train.c"), ("Makefile", "example_train.mk")):
            texts[file] = Template(read_template(template)).substitute(words)
    write_directory(directory, {file: text.encode() for file, text in texts.items()})
    return (
        f"{chain.weights:,} binary weights that learn, by batches of up to {batch_size}; RAM: {source.ram_bytes:,}"
        f" bytes, and the stack; flash: what RAM begins with, {source.constant_bytes:,} bytes of constants and the code"
    )


def export_onnx(
    model: Model, directory: Path, *, name: str = "network", input_shape: tuple[int, ...] | None = None
) -> str:
    """Writes a model as ONNX; as `export_c` otherwise.

    Raises:
        ExportError: the package onnx is not installed; or as of `export_c`.
    """
    _check_name(name)
    check_directory(directory)
    try:
        from bnn.export.onnx_model import OPSET, onnx_model
    except ModuleNotFoundError as error:
        raise ExportError(f"ONNX cannot be written ({error}): pip install 'bnn-edge[export]'") from None
    program = program_of(model, input_shape)
    content = onnx_model(program, name=name).SerializeToString()
    write_directory(directory, {f"{name}.onnx": content})
    return f"{binary_weights(program):,} binary weights; opset {OPSET}; {len(content):,} bytes"


def binary_weights(program: Program) -> int:
    """Weights of one bit."""
    return sum(step.weight.numel() for step in program.steps if isinstance(step, Product) and not _is_real(step))


def _is_real(step: Product) -> bool:
    return step.weight.dtype.is_floating_point


def check_directory(directory: Path) -> None:
    """Refuses a directory that has something in it.

    Raises:
        ExportError: it is not empty, or a file.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ExportError(f"{directory} is not an empty directory: name another one with -o")


def write_directory(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files beside the directory and then puts them in its place.

    Raises:
        ExportError: it cannot be written, or is not empty; nothing is left then.
    """
    check_directory(directory)
    temporary = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        temporary.chmod(0o755)
        os.replace(temporary, directory)
    except OSError as error:
        raise ExportError(f"{directory} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _check_ram(source: Source, fit: int | None, way: str = "") -> None:
    """Refuses a source whose arrays take more than they may; `way`: another one than a smaller network."""
    if fit is not None and source.ram_bytes > fit:
        more = source.ram_bytes - fit
        raise ExportError(
            f"the network takes {source.ram_bytes:,} bytes of RAM beside the stack, {more:,} more than the {fit:,} that"
            f" --fit allows: take a smaller network{way}"
        )


def _check_name(name: str) -> None:
    # The example has a main of its own.
    if name == "main" or not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
        raise ExportError(f"{name!r} cannot begin the names of C: give another word of small letters, digits and _")
