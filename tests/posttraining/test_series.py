"""The products that a signal cannot go around."""

import pytest
from torch import nn

from bnn.models import mlp, resnet8, vgg_small
from bnn.posttraining.series import products_in_series


@pytest.mark.parametrize(
    ("network", "shape", "number"),
    [
        (mlp(hidden=(8, 8, 8)), (1, 28, 28), 4),
        (vgg_small(), (3, 32, 32), 7),
        (resnet8(), (3, 32, 32), 2),  # stem and classifier
        (nn.Linear(3, 2), (3,), 1),
    ],
    ids=["mlp", "vgg_small", "resnet8", "linear"],
)
def test_shortcuts_go_around_products(network, shape, number):
    assert products_in_series(network, shape) == number


def test_of_calls_that_cannot_be_listed_all_products_count():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.one(x) if x.sum() > 0 else self.two(x)

    assert products_in_series(Branches(), (3,)) == 2
