"""CSV files of tables."""

import pytest

from bnn.errors import RunError
from hwsim.studies.tables import write_csv


def test_numbers_words_and_gaps(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_csv(path, {"v": [0.1, 1 / 3], "n": [1, 2], "name": ["a", "b,c"], "gap": [None, 1e-12]})
    assert path.read_text() == 'v,n,name,gap\n0.1,1,a,\n0.33333333,2,"b,c",1e-12\n'


def test_columns_of_different_lengths_are_a_mistake_that_writes_nothing(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, {"a": [1]})
    with pytest.raises(ValueError, match="shorter"):
        write_csv(path, {"a": [1], "b": []})
    assert path.read_text() == "a\n1\n"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_csv(tmp_path / "file" / "table.csv", {"a": [1]})
