"""Sizes and shapes as they are typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.cli.arguments import parse_shape, parse_size
from bnn.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 * 2**20),
        ("1GiB", 2**30),
        ("500kB", 500_000),
        (" 1.5 gib ", 3 * 2**29),
        ("2MB", 2_000_000),
        (".5KiB", 512),
        ("3GB", 3 * 10**9),
        ("7B", 7),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@given(count=st.integers(1, 10**6), unit=st.sampled_from(["B", "kB", "KiB", "MB", "MiB", "GB", "GiB"]))
def test_sizes_grow_with_their_number_and_do_not_mind_case(count, unit):
    assert parse_size(f"{count}{unit}") == count * parse_size(f"1{unit}") == parse_size(f"{count} {unit.upper()}")


@pytest.mark.parametrize(
    "text", ["", "64", "MiB", "-1MiB", "0MiB", "0.1B", "1e3MiB", "64Mi", "64M", "1,5GiB", "64MiBs"]
)
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "shape"), [("3,32,32", (3, 32, 32)), ("1x28x28", (1, 28, 28)), ("784", (784,))])
def test_shapes(text, shape):
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "3,", "0,4", "a", "3, 4", "-3", "1.5"])
def test_what_is_no_shape(text):
    with pytest.raises(UsageError, match="is not the shape"):
        parse_shape(text)


def test_sizes_and_shapes_beyond_all_measure():
    with pytest.raises(UsageError, match="is not a size"):
        parse_size("9" * 400 + "GiB")
    with pytest.raises(UsageError, match="an example has at most 268,435,456 values"):
        parse_shape("3,99999,99999")
