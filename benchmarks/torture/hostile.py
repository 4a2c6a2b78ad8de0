"""Files of someone who means harm: each is refused in one line or read, in bounded time and memory, and nothing of it
is executed. Seals are right, so that all that lies behind them is met."""

import copy
import hashlib
import json
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

import bnn
from benchmarks.torture.commands import answer
from benchmarks.torture.runs import RUNS
from benchmarks.torture.trials import Kind, require, require_one_line, scratch
from benchmarks.torture.writes import trained
from bnn.codec.container import parsed, to_bytes
from bnn.codec.model import load_tensors
from bnn.cost.memory.resident import PeakResident
from bnn.errors import BnnError
from bnn.reports.run_record import read_run
from bnn.training import Trainer, directory
from tests.codec.test_container import record, sealed
from tests.codec.test_hostile import mutated
from tests.training.tiny_runs import assert_same_state, training_state

_LIMIT_S = 5.0
_LIMIT_BYTES = 256 << 20
_DEEP = 100_000
_NESTED = "@nested@"  # becomes brackets that json itself could not write
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, float("nan"), float("inf"), 10**30, -(2**63), 2**64),
    *("", "0", "é\u202e\x1b[2J", "x" * 10_000, "../../etc/passwd", "/dev/zero", "mine.py", "run/recipe.py"),
    *([], {}, [[]], [None], {"": None}, [0] * 1000, {"class": "os.system"}, {"float": "nan"}, _NESTED),
)


def mutated_json(value: Any, chance: Random) -> Any:
    """A JSON value with one to three changes: another value, or one fewer, one more, or two that change places."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice([1, 1, 2, 3])):
        places = list(_places(value))
        if not places:
            return _odd(chance)
        owner, key = chance.choice(places)
        match chance.randrange(6):
            case 0:
                del owner[key]
            case 1 if isinstance(owner, dict):
                owner[chance.choice(["", "x", "version", str(key) + " "])] = _odd(chance)
            case 2:
                other, name = chance.choice(places)
                owner[key] = json.loads(json.dumps(other[name]))
            case 3 if isinstance(owner[key], (int, float)) and not isinstance(owner[key], bool):
                owner[key] = chance.choice([-owner[key], owner[key] + 1, owner[key] * 1.5, str(owner[key]), -1])
            case _:
                owner[key] = _odd(chance)
    return value


def _odd(chance: Random) -> Any:
    return copy.deepcopy(chance.choice(_ODD))


def _places(value: Any) -> Any:
    """Every place of a JSON value: its list or object, and the key there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def text_of(value: Any, **options: Any) -> str:
    """JSON as a hostile hand writes it: with brackets as deep as `_DEEP`."""
    return json.dumps(value, **options).replace(f'"{_NESTED}"', "[" * _DEEP + "]" * _DEEP)


def bounded(action: Callable[[], object]) -> None:
    """Does something that may raise a `BnnError` of one line, in `_LIMIT_S` and `_LIMIT_BYTES`."""
    resident, began = PeakResident(), time.process_time()
    try:
        action()
    except BnnError as error:
        require_one_line(error)
    seconds, risen = time.process_time() - began, resident.above_start_bytes()
    require(seconds < _LIMIT_S, f"it takes {seconds:.1f} s")
    require(risen < _LIMIT_BYTES, f"it takes {risen >> 20} MiB")


@cache
def _model_parts() -> tuple[list[Any], dict[str, Any]]:
    return parsed((trained() / directory.MODEL).read_bytes())


def model_file(chance: Random, folder: Path) -> None:
    """A model file whose seal is right and whose table, tensors or description are not what they were."""
    entries, description = _model_parts()
    content = to_bytes(entries, description)
    match chance.randrange(4):
        case 0:
            changed = mutated_json(description, chance)
            text = text_of(changed) if isinstance(changed, dict) else "[]"
            content = _resealed(content, description=text.encode())
        case 1:
            content = _resealed(content, change=lambda part: mutated(part, chance))
        case 2:
            content = _many(chance)
        case 3:
            content = mutated(content, chance)
    path = folder / "hostile.bnnz"
    path.write_bytes(content)
    bounded(lambda: load_tensors(path, memory_limit_bytes=64 << 20))
    bounded(lambda: _guess(path))


def _guess(path: Path) -> None:
    model = bnn.load(path, memory_limit_bytes=64 << 20)
    with torch.no_grad():
        model(torch.zeros(1, *(model.preprocessing.image_shape if model.preprocessing else (1, 8, 8))))


def _resealed(
    content: bytes, *, description: bytes | None = None, change: Callable[[bytes], bytes] | None = None
) -> bytes:
    """A model file with another description, or with parts changed, under the right seal."""
    import zlib

    from bnn.codec.container import HEADER_BYTES

    table_bytes, _, _, stored_bytes = struct.unpack_from("<IIQI", content, 10)
    middle, end = HEADER_BYTES + table_bytes, HEADER_BYTES + table_bytes + stored_bytes
    table, payloads = zlib.decompress(content[HEADER_BYTES:middle]), content[end:]
    about = zlib.decompress(content[middle:end]) if description is None else description
    if change is not None:
        part = hashlib.sha256(content).digest()[0] % 2 if not payloads else len(payloads) % 2
        table, payloads = (change(table), payloads) if part else (change(table), change(payloads))
    return sealed(table, payloads, description=about)


def _many(chance: Random) -> bytes:
    """Very many tensors, or tensors of many lanes and symbols, in a small file."""
    coding = chance.randrange(4)
    count = chance.choice([1, 16, 1000, 10_000])
    levels = (-1.0, 0.0, 1.0) if coding in (2, 3) else ()
    payload = (
        b""
        if coding != 3
        else struct.pack("<IB", chance.choice([0, 1, 65535]), 0) + b"\0\0\1\0" * chance.choice([1, 4])
    )
    shape = chance.choice([(0,), (1,), (256, 256), (1 << 20,), (1 << 20, 1 << 12)])
    records = b"".join(
        record(f"t{number}".encode(), coding=coding, shape=shape, levels=levels, payload_bytes=len(payload))
        for number in range(count)
    )
    return sealed(records, payload * count)


@cache
def _nearly_done(name: str) -> Path:
    """A run with its last epoch still to do, not to be changed."""
    out = Path(tempfile.mkdtemp(dir=scratch())) / "run"
    Trainer(RUNS[name](epochs=2), out).fit()
    (out / directory.SUMMARY).unlink()
    return out


def manifest(chance: Random, folder: Path) -> None:
    """A checkpoint whose seals are right and whose state or tensors are not what they were: restored whole or not."""
    name = chance.choice(["adam", "recu", "Adam of int8", "edge-min, convolutions", "ternary levels"])
    shutil.copytree(_nearly_done(name), "run")
    checkpoints = folder / "run" / directory.CHECKPOINTS
    newest = max(checkpoints.glob("*.json"))
    for path in checkpoints.iterdir():
        if not path.name.startswith(newest.stem):
            path.unlink()
    _forge(newest, chance)
    run = RUNS[name](epochs=2)
    before = training_state(run)
    trainer = Trainer(run, folder / "run")

    def resume() -> None:
        try:
            trainer.load()
        except BnnError:
            assert_same_state(training_state(run), before)
            raise
        trainer.resume()

    bounded(resume)


def _forge(newest: Path, chance: Random) -> None:
    fields = json.loads(newest.read_text())
    fields.pop("sha256")
    tensors = newest.with_name(fields["tensors"])
    content = tensors.read_bytes()
    if chance.random() < 0.3:
        content = _other_tensors(content, chance)
    elif chance.random() < 0.15:
        fields = mutated_json(fields, chance)
    else:
        fields["state"] = mutated_json(fields["state"], chance)
    if isinstance(fields, dict):
        digest = hashlib.sha256(content).hexdigest()
        if fields.get("tensors") == tensors.name:
            fields["tensors"], fields["tensors_sha256"] = f"{newest.stem}-{digest[:16]}.safetensors", digest
        tensors.unlink()
        tensors.with_name(f"{newest.stem}-{digest[:16]}.safetensors").write_bytes(content)
        plain = text_of(fields, sort_keys=True, separators=(",", ":"))
        seal = hashlib.sha256(plain.encode()).hexdigest()
        fields["sha256"] = seal
    newest.write_text(text_of(fields, sort_keys=True, separators=(",", ":")))


def _other_tensors(content: bytes, chance: Random) -> bytes:
    (size,) = struct.unpack_from("<Q", content)
    header, values = json.loads(content[8 : 8 + size]), content[8 + size :]
    match chance.randrange(3):
        case 0:
            name = chance.choice(list(header))
            begin, end = header[name]["data_offsets"]
            values = values[:begin] + chance.choice([b"\xff", b"\x7f", b"\0"]) * (end - begin) + values[end:]
        case 1:
            one, other = chance.choice(list(header)), chance.choice(list(header))
            header[one], header[other] = header[other], header[one]
        case 2:
            header = mutated_json(header, chance)
    raw = text_of(header).encode()
    return struct.pack("<Q", len(raw)) + raw + values


def _has_many_epochs(path: Path) -> bool:
    """Whether it asks for more than ten epochs, or leaves it to the recipe, which takes a hundred."""
    try:
        return int(json.loads(path.read_text())["arguments"].get("epochs", 100)) > 10
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return False


def configuration(chance: Random, folder: Path) -> None:
    """A configuration with other values; a command reads it, and executes nothing that it names."""
    shutil.copytree(trained(), "run")
    executed = folder / "executed"
    for script in (Path("mine.py"), Path("run", directory.RECIPE)):
        script.write_text(f"open({str(executed)!r}, 'w')\n")
    _change(Path("run", directory.CONFIGURATION), chance)
    words = chance.choice([["eval", "run"], ["compress", "run", "-o", "m.bnnz"], ["train", "--resume", "run"]])
    if words[0] == "train" and _has_many_epochs(Path("run", directory.CONFIGURATION)):
        return  # it would train for so long
    bounded(lambda: answer(words))
    require(not executed.exists(), f"`bnn {words[0]}` executes what the run's directory names")


def _change(path: Path, chance: Random) -> None:
    """Changes a JSON file, or one line of a file of lines."""
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    place = chance.randrange(len(lines))
    lines[place] = _json_or_bytes(lines[place], chance)
    path.write_text("\n".join(lines) + "\n", errors="surrogateescape")


def _json_or_bytes(line: str, chance: Random) -> str:
    if chance.random() < 0.2:
        return mutated(line.encode(), chance).decode(errors="surrogateescape").replace("\n", " ")
    return text_of(mutated_json(json.loads(line), chance))


def figures(chance: Random, folder: Path) -> None:
    """A file of figures with other values, read for the report; of some, the page is made, too."""
    shutil.copytree(trained(), "run", ignore=shutil.ignore_patterns("checkpoints"))
    name = chance.choice([directory.METRICS, directory.METRICS, directory.SUMMARY, "ledger.json"])
    _change(Path("run", name), chance)
    bounded(lambda: read_run(Path("run"), "run", with_memory=False))
    if chance.random() < 0.02:
        answer(["report", "run", str(trained()), "-o", "page.html"])


KINDS = (
    Kind(
        "models",
        "model files with right seals and a changed table, payload or description, or up to 10,000 tensors: read, built"
        " and run within 5 s and 256 MiB",
        model_file,
        short=40,
        long=10_000,
        before=trained,
    ),
    Kind(
        "manifests",
        "checkpoints with right seals, whose state or tensors are of other types, sizes and names, or nested 100,000"
        " deep: all restored or nothing",
        manifest,
        short=20,
        long=10_000,
    ),
    Kind(
        "configurations",
        "`config.json` with values of other types and ranges: `eval`, `compress`, `train --resume`",
        configuration,
        short=20,
        long=10_000,
        before=trained,
    ),
    Kind(
        "figures",
        "`metrics.jsonl`, `summary.json` and `ledger.json` with values of other types and ranges: read for the report,"
        " and some pages made",
        figures,
        short=20,
        long=10_000,
        before=trained,
    ),
)
