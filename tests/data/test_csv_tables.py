"""CSV files: what of them is a header, a number and a class, and which line says why not."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.data.csv_tables import open_table
from bnn.errors import DataError


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "t.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("a,b,kind\n1,2,x\n3,4,y\n", ("a", "b", "kind")),
        ("1,2,x\n3,4,y\n", ()),
        ("\ufeffa;b;kind\n1;2;x\n3;4;y\n", ("a", "b", "kind")),
        ('"a" , "b",kind\r\n\r\n1, 2,x\r\n 3,4 , y\r\n\r\n', ("a", "b", "kind")),
        ("a\tb\tkind\n1\t2\tx\n3\t4\ty", ("a", "b", "kind")),
    ],
)
def test_headers_and_delimiters(text, header, write):
    table = open_table(write(text))
    assert table.header == header
    values, labels = table.read([0, 1], 2)
    assert values.dtype == np.float32
    assert values.tolist() == [[1, 2], [3, 4]]
    assert labels == ["x", "y"]


def test_columns_go_by_name_or_by_number(write):
    table = open_table(write("a,b,kind\n1,2,x\n"))
    assert [table.place(name) for name in ("kind", "a")] == [2, 0]
    with pytest.raises(DataError, match="has no column 'kin', but there is 'kind'; there are: a, b, kind"):
        table.place("kin")
    table = open_table(write("1,2,x\n"))
    assert table.place("1") == 0
    for column in ("0", "4", "kind", "-1", "1.0"):
        with pytest.raises(DataError, match=f"has no header: name a column by its number, 1 to 3, not '{column}'"):
            table.place(column)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b,kind\n", "has no rows"),
        ("a,b,kind\n1,x,p\n", "line 2, column 'b': 'x': mend them"),
        ("a,b,kind\n1,2,p\n\n1,nan,p\n", "line 4, column 'b': 'nan'"),
        ("a,b,kind\n1,inf,p\n", "column 'b': 'inf'"),
        ("1,2,p\n1,,p\n", "line 2, column '2': empty"),
        ("1,2,p\n1,2,\n", "line 2, column '3': empty"),
        ("1,2,p\n" + "?,?,p\n" * 4, r"line 2, column '1': '\?'; line 2, column '2': '\?'; line 3, .* and 5 more: mend"),
        ("1,2,p\n1,2\n", "line 2: 2 cells, where the first line has 3"),
        ("a,b,kind\n1,2,3,p\n", "line 2: 4 cells, where the first line has 3"),
        ("1,1e39,p\n", "float32 cannot hold"),
        ("a,2,b,kind\n1,2,3,x\n", "neither a header, .* nor a row of numbers and a class: 'a'"),
        (",b,kind\n0,1,x\n", "column 1 has no name"),
        ("a\x1b[2J,b,kind\n0,1,x\n", "column 1 has no name that can be printed"),
        ("a,a,kind\n0,1,x\n", "2 columns are called 'a'"),
        (b"\xff\xfe\x00a", "no table in UTF-8 text"),
        ("a,b\n" + "1" * 200_000 + ",x\n", "no table in UTF-8 text: field larger"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_where(text, message, write):
    path = write(text)
    with pytest.raises(DataError, match=message) as caught:
        open_table(path).read([0, 1], 2)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    missing = tmp_path / "gone.csv"
    for path, reason in ((missing, "No such file"), (tmp_path, "Is a directory"), (pipe, "it is not a regular file")):
        with pytest.raises(DataError, match=f"cannot be read: {reason}"):
            open_table(path)


@given(
    values=st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1
    ),
    header=st.booleans(),
)
def test_numbers_come_back_as_they_were_written(values, header, tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    lines = [",".join([*map(repr, row), "k"]) for row in values]
    path.write_text("\n".join([*(["a,b,c,kind"] if header else []), *lines]))
    found, _ = open_table(path).read([0, 1, 2], None)
    assert np.array_equal(found, np.array(values, np.float32))
