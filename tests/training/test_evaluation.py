"""Accuracy, its interval, and what is taken for what."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn.codec import Model
from bnn.codec.errors import CodecError
from bnn.data import Preprocessing, Split
from bnn.errors import DataError, RunError
from bnn.training.evaluation import evaluate, relabelled, wilson_interval


class Brightness(nn.Module):
    """Takes an image for the class of its brightness, in thirds."""

    def forward(self, x: Tensor) -> Tensor:
        level = (x.flatten(1).mean(1) * 3).long().clamp(0, 2)
        return nn.functional.one_hot(level, 3).float()


def split(levels: list[int], labels: list[int]) -> Split:
    images = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Split(images=images, labels=torch.tensor(labels))


TAKES = Preprocessing((1, 2, 2), (0.0,), (1.0,))
MODEL = Model(Brightness(), preprocessing=TAKES, classes=("a", "b", "c"))


def test_counts():
    found = evaluate(MODEL, split([10, 100, 240, 240, 10], [0, 1, 2, 1, 1]))
    assert found.confusion.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 1]]
    assert (found.images, found.correct, found.accuracy) == (5, 3, 0.6)
    right, wrong = torch.tensor([1.0, 0, 0]).log_softmax(0)[:2].tolist()
    assert found.loss == pytest.approx(-(3 * right + 2 * wrong) / 5)


class Ranking(nn.Module):
    """Seven classes whose logits fall with their distance from the brightness in eighths."""

    def forward(self, x: Tensor) -> Tensor:
        return -(x.flatten(1).mean(1, keepdim=True) * 8 - torch.arange(7) - 0.1).abs()


def test_five_classes_may_be_named():
    model = Model(Ranking(), preprocessing=TAKES, classes=tuple("abcdefg"))
    # Brightness 0 ranks the classes by their numbers: 0 to 4 are among the five, 5 and 6 are not.
    found = evaluate(model, split([0] * 7, list(range(7))))
    assert (found.correct, found.within_5) == (1, 5)
    assert evaluate(MODEL, split([10, 100], [2, 2])).within_5 == 2


# Newcombe 1998, Stat. Med. 17, 857, table I, method 3.
@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilson_s(correct, images, low, high):
    assert wilson_interval(correct, images) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_intervals_hold_the_share_and_narrow_with_the_images(correct, more):
    images = correct + more
    low, high = wilson_interval(correct, images)
    assert 0 <= low < high <= 1
    if images:
        assert low <= correct / images + 1e-12
        assert correct / images <= high + 1e-12
        finer = wilson_interval(4 * correct, 4 * images)
        assert finer[1] - finer[0] < high - low


def test_what_does_not_fit_is_one_line():
    images = split([10], [0])
    with pytest.raises(DataError, match=r"takes images of \[1, 2, 2\], these are \[1, 3, 3\]"):
        evaluate(MODEL, Split(torch.zeros(1, 1, 3, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)))
    with pytest.raises(DataError, match="has 3 classes, the data have label 3"):
        evaluate(MODEL, split([10], [3]))
    with pytest.raises(DataError, match="no image"):
        evaluate(MODEL, Split(torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(DataError, match="does not say how images become"):
        evaluate(Model(Brightness(), classes=("a",)), images)
    with pytest.raises(RunError, match="not a logit of each of 2 classes"):
        evaluate(Model(Brightness(), preprocessing=TAKES, classes=("a", "b")), images)
    with pytest.raises(CodecError, match=r"the network fails on images of \[1, 1, 2, 2\]"):
        evaluate(Model(nn.Linear(5, 3), preprocessing=TAKES, classes=("a", "b", "c")), images)


def test_labels_go_by_the_names_of_the_classes():
    found = relabelled(split([1, 2, 3], [0, 1, 0]), ("c", "a"), ("a", "b", "c"))
    assert found.labels.tolist() == [2, 0, 2]
    with pytest.raises(DataError, match="does not know the class 'd'; it knows a, b, c"):
        relabelled(split([1], [0]), ("d",), ("a", "b", "c"))
