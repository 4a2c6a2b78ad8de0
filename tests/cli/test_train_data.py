"""`bnn train` with the data of a user."""

from pathlib import Path

import numpy as np
import pytest

from bnn.data import digits
from bnn.training.directory import read_json
from tests.cli.command_line import DIGITS, QUICK, ROOT, assert_one_line, recipe


def saved_digits(**changes: np.ndarray) -> None:
    data = digits()
    arrays = {
        f"{part}_{kind}": getattr(split, kind).numpy()
        for part, split in (("train", data.train), ("test", data.test))
        for kind in ("images", "labels")
    }
    Path("data").mkdir()
    np.savez("data/digits.npz", **{**arrays, **changes})


def test_another_digits_file_is_used(bnn):
    saved_digits(train_images=digits().train.images.numpy()[:640], train_labels=digits().train.labels.numpy()[:640])
    code, output, _ = bnn("train", DIGITS, *QUICK, "--data-dir", "data", "--out", "run")
    assert code == 0
    assert read_json(Path("run/summary.json"))["steps"] == 2 * (576 // 64)
    assert "data/digits.npz" in output


def test_a_folder_of_other_data_is_not_passed_over_in_silence(bnn):
    Path("pets/cat").mkdir(parents=True)
    assert_one_line(bnn("train", DIGITS, *QUICK, "--data-dir", "pets", "--out", "run"), "digits.npz", "pets")
    assert not Path("run").exists()


def test_labels_out_of_range_name_the_file(bnn):
    saved_digits(test_labels=digits().test.labels.numpy() + 5)
    assert_one_line(bnn("train", DIGITS, "--data-dir", "data", "--out", "run"), "data/digits.npz", "label 14")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_damaged_data_file_is_named(content, bnn):
    Path("data").mkdir()
    Path("data/digits.npz").write_bytes(content)
    assert_one_line(bnn("train", DIGITS, "--data-dir", "data", "--out", "run"), "data/digits.npz is damaged")


@pytest.mark.parametrize("folders", [[], ["train", "test"], ["train/a", "test"]])
def test_image_folder_without_classes_is_named(folders, bnn):
    Path("images").mkdir()
    for folder in folders:
        Path("images", folder).mkdir(parents=True)
    source = "from bnn.data import image_folder\n\n\ndef recipe(): return run(data=image_folder('images', size=8))"
    assert_one_line(bnn("train", recipe(source), "--out", "run"), "images")


def test_missing_mnist_is_named(bnn):
    Path("data").mkdir()
    words = ("train", str(ROOT / "recipes" / "mnist.py"), "--data-dir", "data", "--out", "run")
    assert_one_line(bnn(*words), "data/MNIST/raw/train-images-idx3-ubyte", "--data-dir")
