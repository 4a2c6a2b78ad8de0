"""Which part of a picture is seen."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.data.shards.crops import centre_boxes, random_boxes

SIDES = st.integers(1, 3000)


def test_the_centre_of_a_usual_picture_is_224_of_256():
    assert centre_boxes(torch.tensor([256, 341]), torch.tensor([341, 256])).tolist() == [
        [16, 58, 224, 224],
        [58, 16, 224, 224],
    ]


@given(SIDES, SIDES, st.integers(0, 2**63 - 1))
def test_boxes_lie_within_the_picture(height, width, random):
    sides = torch.tensor([height]), torch.tensor([width])
    for boxes in (centre_boxes(*sides), random_boxes(*sides, torch.tensor([random]))):
        top, left, tall, wide = boxes[0].tolist()
        assert 0 <= top <= top + tall <= height
        assert 0 <= left <= left + wide <= width
        assert min(tall, wide) >= 1


def test_areas_proportions_and_places_are_those_of_the_law():
    n = 100_000
    top, left, tall, wide = random_boxes(
        torch.full((n,), 1000), torch.full((n,), 1000), torch.arange(n) * 92_233_720_368_547
    ).unbind(1)
    area = tall * wide / 1e6
    assert 0.079 < float(area.min()) < 0.082
    # Those that are cut are a few of the largest.
    assert math.isclose(float((area < 0.5).float().mean()), (0.5 - 0.08) / 0.92, abs_tol=0.02)
    ratio = (wide / tall)[area < 0.5].log()
    assert math.isclose(float(ratio.std()), 2 * math.log(4 / 3) / math.sqrt(12), rel_tol=0.02)
    assert float(ratio.abs().max()) < math.log(4 / 3) + 0.01
    for place, length in ((top, tall), (left, wide)):
        free = 1000 - length
        assert math.isclose(float((place / free)[free > 100].mean()), 0.5, abs_tol=0.01)
