"""Data sets by name."""

import pytest
import torch

from bnn.data import hold_out, load_dataset
from bnn.errors import DataError
from tests.recipes.small_data import write_mnist


@pytest.fixture
def folder(tmp_path):
    write_mnist(tmp_path, images=50)
    return tmp_path


def test_a_data_set_is_that_of_its_function(folder):
    data = load_dataset("mnist", folder)
    assert (data.name, len(data.train), len(data.test)) == ("mnist", 50, 10)


def test_a_part_of_the_training_images_is_random_and_always_the_same(folder):
    whole, part = load_dataset("mnist", folder), load_dataset("mnist", folder, train_images=20)
    expected, _ = hold_out(whole.train, fraction=0.6, seed=0)
    assert torch.equal(part.train.rows, expected.rows)
    assert part.train.rows.tolist() != list(range(20))
    assert len(part.test) == 10
    assert part.mean == whole.mean
    assert len(load_dataset("mnist", folder, train_images=50).train) == 50
    assert len(load_dataset("mnist", folder, train_images=1).train) == 1


@pytest.mark.parametrize("images", [0, -1, 51])
def test_more_images_than_there_are_or_none_are_refused(images, folder):
    with pytest.raises(DataError, match=f"mnist has 50 training images: take 1 to 50 of them, not {images}"):
        load_dataset("mnist", folder, train_images=images)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(DataError, match="there is no data set 'imagenet'; there are: mnist, fashion_mnist, cifar10"):
        load_dataset("imagenet", tmp_path)
