"""Parsers of what users and files say, fuzzed by hypothesis: a value, or an error of one line."""

import json
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, seed, settings

from benchmarks.torture.trials import Kind, require, require_one_line
from bnn.cli.arguments import parse_shape, parse_size
from bnn.codec.container import MAGIC, parsed
from bnn.codec.network import build
from bnn.data import Dataset
from bnn.data.measurements import measurements
from bnn.data.preprocessing import Preprocessing
from bnn.data.shards import read_shards
from bnn.data.shards.files import read_index
from bnn.errors import BnnError
from bnn.files import parse_json, sealed, unsealed
from bnn.training.directory import METRICS, read_metrics
from bnn.training.recipe import load_recipe, locate_recipe, parse_arguments, recipe_parser
from hwsim.devices.device_file import read_device
from hwsim.devices.measurements import read_measurements
from hwsim.devices.mtj import MTJ

_EXAMPLES = 100

_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_json = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
)


def _keyed(*names: str) -> st.SearchStrategy[Any]:
    """Objects that have some of the names that a parser looks for."""
    return st.dictionaries(st.sampled_from(names), _json, max_size=len(names)) | _json


def _metrics(text: str) -> None:
    Path(METRICS).write_text(text, encoding="utf-8", errors="surrogatepass")
    read_metrics(Path())


def _text_file(read: Callable[[Path], object]) -> Callable[[str], object]:
    def parse(text: str) -> object:
        path = Path("file.csv")
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        return read(path)

    return parse


def _sealed_file(name: str, read: Callable[[Path], object]) -> Callable[[dict[str, Any]], object]:
    def parse(fields: dict[str, Any]) -> object:
        Path(name).write_bytes(sealed(fields))
        Path(name).with_suffix(".jpegs").write_bytes(b"")
        return read(Path(name))

    return parse


def _arguments(words: list[str]) -> None:
    try:
        parse_arguments(recipe_parser(load_recipe(locate_recipe("digits")), prog="bnn train digits"), words)
    except SystemExit as end:  # that of --help
        require(not end.code, f"{words} end with {end.code}")


_lines = st.lists(_json.map(json.dumps) | st.text(max_size=30), max_size=4).map("\n".join)
_words = st.lists(
    st.sampled_from(["--epochs", "--width", "--preset", "--seed", "--learning-rate", "--data-dir", "--no-such"])
    | st.text(max_size=10)
    | st.integers().map(str)
    | st.floats().map(str),
    max_size=5,
)
_description = _keyed("class", "arguments", "parts", "attributes", "float")
_data = _keyed(
    "name", "image_shape", "classes", "mean", "std", "train_images", "test_images", "source", "preprocessing"
)
_numbers = st.sampled_from(["0.5", "-0.5", "1e-9", "100", "50", "nan", "inf", "1e400", "", " 3"]) | st.text(max_size=6)
_rows = st.lists(st.lists(_numbers, max_size=5).map(",".join), max_size=6).map("\n".join)
_counts = _rows.map("voltage_V,pulse_width_s,switched,trials\n".__add__) | _rows
_device = st.dictionaries(st.sampled_from([field.name for field in fields(MTJ)]), _plain).map(json.dumps)
_device_text = _device.map(lambda text: "[mtj]\n" + text[1:-1].replace('": ', '" = ').replace(", ", "\n")) | _lines
_shards = _keyed("version", "classes", "counts", "mean", "std", "shorter_side", "damaged").filter(
    lambda value: isinstance(value, dict)
)
_index = st.dictionaries(
    st.sampled_from(["lengths", "crc32", "heights", "widths", "labels", "damaged", "histogram"]),
    st.just([]) | st.lists(st.integers(), max_size=2) | _json,
)
PARSERS: dict[str, tuple[Callable[[Any], object], st.SearchStrategy[Any]]] = {
    "sizes": (parse_size, st.text(max_size=20) | st.from_regex(r"\s*[\d.]{1,400}\s*[a-zA-Z]{0,4}")),
    "shapes": (parse_shape, st.text(max_size=20) | st.from_regex(r"\d{1,30}([,x]\d{0,30}){0,4}")),
    "JSON": (parse_json, st.binary(max_size=60) | _json.map(lambda value: json.dumps(value).encode())),
    "sealed JSON": (unsealed, st.binary(max_size=60) | _keyed("sha256").map(lambda value: json.dumps(value).encode())),
    "metrics": (_metrics, _lines | st.text(max_size=60)),
    "model files": (parsed, st.binary(max_size=200) | st.binary(max_size=200).map(MAGIC.__add__)),
    "networks": (build, _description),
    "preprocessing": (Preprocessing.from_description, _keyed("image_shape", "mean", "std", "size", "channels")),
    "data sets": (Dataset.from_description, _data),
    "arguments": (_arguments, _words),
    "counts of switching": (_text_file(partial(read_measurements, signed=True)), _counts),
    "device files": (_text_file(read_device), _device_text),
    "tables": (_text_file(measurements), _rows),
    "shards": (_sealed_file("shards.json", lambda path: read_shards(path.parent)), _shards),
    "indices of shards": (_sealed_file("train-00000.json", partial(read_index, classes=3)), _index),
}
# Those of plain functions, which their callers turn into one line.
_PLAIN_ERRORS = ("JSON", "sealed JSON", "counts of switching", "device files")


def trial(chance: Random, folder: Path) -> None:
    """Gives one parser a hundred texts or values."""
    name = chance.choice(list(PARSERS))
    parse, values = PARSERS[name]

    @seed(chance.randrange(2**31))
    @settings(max_examples=_EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values)
    def fuzz(value: Any) -> None:
        try:
            parse(value)
        except BnnError as error:
            require_one_line(error)
        except ValueError:
            if name not in _PLAIN_ERRORS:
                raise

    fuzz()


KINDS = (
    Kind(
        "parsers",
        f"{_EXAMPLES} texts or values that hypothesis makes for one of {len(PARSERS)} parsers",
        trial,
        short=1,
        long=300,
    ),
)
