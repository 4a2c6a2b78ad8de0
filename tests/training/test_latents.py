import math

import pytest
import torch
from torch import nn

from bnn.errors import RecipeError
from bnn.layers import BinaryLinear
from bnn.quantizers import ReCU
from bnn.training import Callback, Run, Trainer
from bnn.weights import LatentStore
from tests.training.tiny_runs import tiny_dataset


def train(tmp_path, quantizer, *callbacks: Callback) -> nn.Sequential:
    model = nn.Sequential(
        nn.Flatten(),
        BinaryLinear(36, 4, input_quantizer=None, store=lambda shape: LatentStore(shape, quantizer=quantizer)),
        nn.Linear(4, 4),
    )
    with torch.no_grad():
        model[1].store.weight.copy_(torch.linspace(-3, 3, 144).view(4, 36))
        model[2].weight.fill_(5.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = Run(model=model, data=tiny_dataset(), optimizer=optimizer, epochs=1, batch_size=60, seed=0, validation=0.0)
    run.callbacks = callbacks
    Trainer(run, tmp_path / "run").fit()
    return model


@pytest.mark.parametrize("limit", [1.0, 0.25])
def test_clips_latents_and_nothing_else(limit, tmp_path):
    model = train(tmp_path, None, ClipLatents(limit=limit))
    weight = model[1].store.weight
    assert weight.abs().max() == limit
    assert (weight.abs() == limit).float().mean() > 0.5
    assert model[2].weight.min() > 3


def test_latents_go_free_without_it(tmp_path):
    assert train(tmp_path, None)[1].store.weight.abs().max() > 2.9


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_limit_must_be_positive(limit):
    with pytest.raises(RecipeError, match="the limit of latent weights is above 0"):
        ClipLatents(limit=limit)


@pytest.mark.parametrize(("tail", "moved"), [("project", True), ("pass", False)])
def test_projects_what_the_quantizer_wants_projected(tail, moved, tmp_path):
    quantizer = ReCU(tau=0.7, tail=tail, quantile="empirical", standardize=False)
    weight = train(tmp_path, quantizer, ProjectLatents())[1].store.weight
    # At tau = 0.7 the weights beyond the 0.4-quantile of |w| come to lie on it.
    on_the_bound = weight.abs().isclose(weight.abs().max()).float().mean()
    assert (on_the_bound > 0.5) == moved
    assert (weight.abs().max() < 2) == moved
