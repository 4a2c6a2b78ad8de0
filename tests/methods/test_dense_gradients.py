"""What changes gradients between backward and the step needs to find them there."""

import pytest
import torch

from bnn.errors import RecipeError
from bnn.layers import BinaryLinear
from bnn.methods import AdaptiveGradientScaling, SilenceAwareDecay
from bnn.models import mlp
from bnn.optim import SGD
from bnn.quantizers.gradients import SignGradient
from bnn.training import Run, Trainer
from bnn.weights import AccumulatorStore
from tests.training.tiny_runs import sgd_run, tiny_dataset

METHODS = pytest.mark.parametrize("method", [AdaptiveGradientScaling, SilenceAwareDecay])


def packed_signs_run(**options) -> Run:
    def store(shape):
        return AccumulatorStore(shape, gradient_quantizer=SignGradient(packed=True, scale="none"))

    model = mlp(input_shape=(1, 6, 6), classes=4, hidden=(8,), store=store)
    return Run(
        model=model,
        data=tiny_dataset(),
        optimizer=SGD(model.parameters(), lr=0.1),
        epochs=1,
        batch_size=12,
        seed=0,
        **options,
    )


@METHODS
def test_packed_signs_are_refused_with_a_way_on(method, tmp_path):
    needs = rf"{method.__name__} needs a dense gradient of layer \S+ .* it has BitTensor: use stores"
    with pytest.raises(RecipeError, match=needs):
        Trainer(packed_signs_run(callbacks=[method()]), tmp_path / "run").fit()


@METHODS
def test_a_weight_that_is_not_trained_is_refused(method, tmp_path):
    run = sgd_run(callbacks=[method()])
    run.model.add_module("unused", torch.nn.Identity())
    run.model.unused.layer = BinaryLinear(3, 3)
    with pytest.raises(RecipeError, match=r"layer unused.layer .* it has none"):
        Trainer(run, tmp_path / "run").fit()
