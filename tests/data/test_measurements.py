"""Tables and arrays as data sets: their parts, classes and statistics, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bnn.data import Batches, Dataset, Preprocessing, Split, measurements
from bnn.data.measurements import labelled_measurements
from bnn.errors import DataError

LINES = ["a,b,kind", *(f"{n},{10 * n},{'xy'[n % 2]}" for n in range(10))]
X = np.arange(24, dtype=np.float64).reshape(12, 2)
Y = np.arange(12) % 3
SIGNALS = np.random.default_rng(0).normal(5, 2, (12, 3, 7))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(LINES))
    return path


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(**arrays: np.ndarray) -> Path:
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    return save


def test_a_table_is_divided_class_by_class_and_by_seed(table):
    data = measurements(table, test_part=0.4, seed=3)
    assert (data.classes, data.columns, data.target) == (("x", "y"), ("a", "b"), "kind")
    assert data.image_shape == (2,)
    assert [data.train.labels.bincount().tolist(), data.test.labels.bincount().tolist()] == [[3, 3], [2, 2]]
    examples = torch.cat([part[torch.arange(len(part))][0] for part in (data.train, data.test)])
    assert sorted(examples[:, 0].tolist()) == list(range(10))
    again, other = (measurements(table, test_part=0.4, seed=seed).test.rows.tolist() for seed in (3, 4))
    assert again == data.test.rows.tolist() != other


def test_each_feature_of_the_training_part_is_standardised(table):
    data = measurements(table)
    batches = Batches(data.train, batch_size=8, mean=data.mean, std=data.std)
    ((x, _),) = batches.epoch(0)
    assert x.mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert x.std(dim=0, correction=0).tolist() == pytest.approx([1, 1])
    assert torch.equal(data.preprocessing.normalized(data.train[torch.arange(8)][0]), x)


def test_each_channel_of_signals_is_standardised(save):
    data = measurements(save(x=SIGNALS, y=Y))
    assert data.image_shape == (3, 7)
    train = data.train[torch.arange(len(data.train))][0]
    x = data.preprocessing.normalized(train)
    assert x.mean(dim=(0, 2)).tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert not torch.equal(x, train)


def test_classes_are_in_the_order_of_their_numbers_or_names(tmp_path):
    for names, order in ((["10", "9", "-1"], ("-1", "9", "10")), (["b", "10", "a"], ("10", "a", "b"))):
        path = tmp_path / "t.csv"
        path.write_text("".join(f"{n},{name}\n" for n, name in enumerate(names * 2)))
        data = measurements(path)
        assert data.classes == order
        assert (data.columns, data.target) == ((), "2")


def test_the_column_of_the_class_may_be_any(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("kind,a,b\n" + "x,1,2\ny,3,4\n" * 3)
    data = measurements(path, target="kind")
    assert (data.columns, data.classes) == (("a", "b"), ("x", "y"))
    path.write_text("x,1,2\ny,3,4\n" * 3)
    assert measurements(path, target="1").classes == ("x", "y")
    path.write_text("1,x\n2,y\n" * 3)
    assert measurements(path, target="2").image_shape == (1,)


def test_a_test_file_may_have_its_columns_in_another_order_and_more_of_them(table, tmp_path):
    test = tmp_path / "other.csv"
    test.write_text("kind,note,b,a\nx,9,50,5\n")
    data = measurements(table, test=test)
    assert (len(data.train), len(data.test)) == (10, 1)
    assert data.test.images.tolist() == [[5, 50]]
    for text, message in (
        ("a,c,kind\n1,2,x\n", "has no column 'b'"),
        ("a,b,class\n1,2,x\n", "has no column 'kind'"),
        ("a,b,kind\n1,2,z\n", "the class 'z' is not one of those to train on: x, y"),
        ("1,2,3,x\n", "has no header"),
    ):
        test.write_text(text)
        with pytest.raises(DataError, match=message):
            measurements(table, test=test)


def test_folders_of_tables_and_of_arrays(tmp_path):
    for part, rows in (("train", 8), ("test", 4)):
        (tmp_path / f"{part}.csv").write_text("\n".join(LINES[: rows + 1]))
    data = measurements(tmp_path)
    assert (len(data.train), len(data.test), data.name) == (8, 4, tmp_path.name)
    (tmp_path / "train.csv").unlink()
    for name, array in (("x_train", X), ("y_train", Y), ("x_test", X[:3]), ("y_test", Y[:3])):
        np.save(tmp_path / f"{name}.npy", array)
    data = measurements(tmp_path)
    assert (len(data.train), len(data.test), data.target) == (12, 3, "")


def test_archives_with_and_without_a_test_part(save):
    assert len(measurements(save(x=X, y=Y)).test) == 3
    data = measurements(save(X_train=X, y_train=Y.astype(float)[:, None], x_test=X[:2], y_test=Y[:2]))
    assert (len(data.train), len(data.test), data.classes) == (12, 2, ("0", "1", "2"))
    assert measurements(save(x=X, y=np.array(["b", "a"] * 6))).classes == ("a", "b")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has no array y; it has x"),
        ({"data": X}, "has no array x; it has data: call the inputs x and the classes y"),
        ({"x": X, "y": Y[:5]}, "12 examples in x and 5 classes in y"),
        ({"x": X.astype(object), "y": Y}, "an array of Python objects, which is not opened"),
        ({"x": X.astype(str), "y": Y}, "x is of <U32, where numbers are wanted"),
        ({"x": X[:, 0], "y": Y}, r"x is of shape \[12\]: examples lie along the first dimension"),
        ({"x": X[:0], "y": Y[:0]}, r"x is of shape \[0, 2\]"),
        ({"x": X, "y": np.eye(12)}, r"y is of float64 \[12, 12\]: it has the class of each example"),
        ({"x": X, "y": Y + 0.5}, r"y is of float64 \[12\]"),
        ({"x": np.where(X == 4, np.nan, X), "y": Y}, "1 values of x are not finite, the first in example 2"),
        ({"x": X * 1e39, "y": Y}, "23 values of x are not finite, the first in example 0"),
        ({"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y}, r"the shape \[2\], those to test on \[1\]"),
        ({"x": X, "y": Y, "x_test": X}, "has no array y_test"),
        ({"x": X, "y": np.arange(12) % 11}, r"10 of 11 classes have 1 example, .* \(1, 2, 3, ...\)"),
    ],
)
def test_arrays_that_cannot_be_used(arrays, message, save):
    with pytest.raises(DataError, match=message):
        measurements(save(**arrays))


def test_files_that_cannot_be_used(tmp_path, table):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "b.npz").write_bytes(b"no archive")
    (tmp_path / "c.txt").write_text("1,2")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("gone.csv", "there is no .*gone.csv: point --data-dir at a CSV"),
        ("x.npy", "holds one array: name a folder with x.npy and y.npy"),
        ("b.npz", "is no .npz archive"),
        ("c.txt", "none of the files that are read, which end in .csv, .npz, .npy"),
        ("folder", "has neither train.csv nor train.npz nor x.npy and y.npy"),
    ):
        with pytest.raises(DataError, match=message):
            measurements(tmp_path / name)
    (tmp_path / "x.npy").write_bytes(b"garbage")
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(DataError, match="damaged or no NumPy file"):
        measurements(tmp_path)
    for part in (0, 1, -0.5, float("nan")):
        with pytest.raises(DataError, match="lies between 0 and 1"):
            measurements(table, test_part=part)
    with pytest.raises(DataError, match="has no column 'sort'; there are: a, b, kind"):
        measurements(table, target="sort")


def test_a_column_of_one_value_is_said_and_becomes_0(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,kind\n" + "7,1,x\n7,2,y\n7,3,x\n7,4,y\n")
    with pytest.warns(UserWarning, match=r"1 column of one value tells nothing: a \(7\)"):
        data = measurements(tmp_path / "t.csv")
    assert data.std[0] == 1
    assert data.preprocessing.normalized(data.train.images)[:, 0].tolist() == [0] * 4


def test_what_is_read_to_predict(table, save, tmp_path):
    takes = measurements(table).preprocessing
    assert Preprocessing.from_description(takes.described()) == takes
    other = tmp_path / "q.csv"
    for text in ("b,a\n2,1\n", "1,2\n", "a,b,kind\n1,2,x\n"):
        other.write_text(text)
        assert takes.decode([other]).tolist() == [[1, 2]]
    assert takes.decode([other, other]).tolist() == [[1, 2]] * 2
    assert torch.equal(takes.decode([save(x=X)]), torch.tensor(X, dtype=torch.float32))
    np.save(tmp_path / "x.npy", X)
    assert takes.decode([tmp_path / "x.npy"]).shape == (12, 2)
    for text, message in (
        ("a,c\n1,2\n", "has no column 'b'"),
        ("1,2,3\n", r"has examples of \[3\], the model takes \[2\]"),
    ):
        other.write_text(text)
        with pytest.raises(DataError, match=message):
            takes.decode([other])
    other.write_text("".join(f"{n},{n}\n" for n in (1, 2) * 3))
    headless = measurements(other).preprocessing
    assert headless.target == "2"
    assert headless.decode([other]).shape == (6, 1)
    signals = measurements(save(x=SIGNALS, y=Y)).preprocessing
    with pytest.raises(DataError, match=r"the model takes arrays of \[3, 7\], not tables"):
        signals.decode([other])


def test_examples_to_evaluate_on_are_all_or_the_test_part(table, save):
    takes = measurements(table).preprocessing
    split, classes = labelled_measurements(table, takes)
    assert (len(split), classes) == (10, ("x", "y"))
    takes = measurements(save(x=X, y=Y)).preprocessing
    assert len(labelled_measurements(save(x=X, y=Y, x_test=X[:4], y_test=Y[:4]), takes)[0]) == 4
    with pytest.raises(DataError, match="there is no"):
        labelled_measurements("gone.csv", takes)


def test_a_description_gives_arrays_without_their_values(table):
    data = measurements(table)
    again = Dataset.from_description(data.described())
    assert (again.described(), again.preprocessing) == (data.described(), data.preprocessing)
    assert again.train.images.dtype == torch.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"reads": "minds"},
        {"columns": ["a"]},
        {"columns": ["a", "\x1b[2J"]},
        {"columns": 3},
        {"target": "\n"},
        {"image_shape": []},
        {"image_shape": [2, 0]},
        {"reads": "pictures"},
    ],
)
def test_a_description_that_lies_is_refused(changes, table):
    with pytest.raises(DataError):
        Preprocessing.from_description({**measurements(table).preprocessing.described(), **changes})


def test_a_split_of_arrays_needs_features():
    with pytest.raises(DataError, match=r"arrays float32 \[n, C, ...\], got float32 \[3\]"):
        Split(images=torch.zeros(3), labels=torch.zeros(3, dtype=torch.int64))
