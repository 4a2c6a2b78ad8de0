import math

import pytest
import torch
from torch import nn

from bnn.errors import RecipeError
from bnn.training import Run
from tests.training.tiny_runs import tiny_dataset

MODEL = nn.Linear(36, 4)


def make(**options) -> Run:
    defaults = {
        "model": MODEL,
        "data": tiny_dataset(),
        "optimizer": torch.optim.SGD(MODEL.parameters(), lr=0.1),
        "epochs": 1,
        "batch_size": 12,
        "seed": 0,
    }
    return Run(**{**defaults, **options})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "a run has at least 1 epoch, got 0"),
        ("batch_size", 0, "a batch has at least 1 example, got 0"),
        ("seed", -1, "a seed is 0 or above, got -1"),
        ("validation", 1.0, r"the validation part lies in \[0, 1\), got 1.0"),
        ("validation", -0.1, "the validation part"),
        ("validation", math.nan, "the validation part"),
        ("precision", "float16", "the precision is one of float32, bfloat16, got 'float16'"),
    ],
)
def test_value_out_of_range_is_refused(name, value, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        make(**{name: value})


@pytest.mark.parametrize("rate", [0.0, math.inf])
def test_learning_rate_must_be_finite_and_positive(rate):
    with pytest.raises(RecipeError, match=f"the learning rate is a finite number above 0, got {rate}"):
        make(optimizer=torch.optim.SGD(MODEL.parameters(), lr=rate))


def test_limits_of_the_ranges_are_allowed():
    run = make(epochs=1, batch_size=1, seed=0, validation=0.0)
    assert (run.epochs, run.batch_size, run.seed, run.validation) == (1, 1, 0, 0.0)
    assert make().validation == 0.1
