import math

import pytest
import torch

from bnn.quantizers import BoundedSign
from bnn.weights import LatentStore
from tests.contracts import randn


def test_filters_keep_their_norm_and_their_direction():
    weight = randn(5, 4, 3, 3) * torch.logspace(-3, 3, 5).view(-1, 1, 1, 1)
    before = weight.clone()
    BoundedSign(norm=2.0).project_(weight)
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close(torch.cosine_similarity(weight.flatten(1), before.flatten(1)), torch.ones(5))


def test_the_norm_is_that_of_drawn_weights(generator):
    store = LatentStore((64, 400), quantizer=BoundedSign())
    store.initialize(generator)
    assert store.weight.norm(dim=1).mean().item() == pytest.approx(1, rel=0.02)
    store.project_()
    torch.testing.assert_close(store.weight.norm(dim=1), torch.ones(64))


def test_zeros_stay():
    weight = torch.zeros(2, 3)
    BoundedSign().project_(weight)
    assert not weight.any()


@pytest.mark.parametrize("norm", [0.0, -1.0, math.inf])
def test_norms_are_checked(norm):
    with pytest.raises(ValueError, match="norm of a filter is above 0 and finite"):
        BoundedSign(norm=norm)
