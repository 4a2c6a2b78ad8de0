"""How many slices of a batch a prediction takes."""

from functools import partial

import pytest
import torch
from torch import nn

from bnn.cost.memory import predicted
from bnn.layers import BinaryLinear
from bnn.optim import Adam
from bnn.quantizers.gradients import SignGradient
from bnn.training import TrainingStep
from bnn.weights import AccumulatorStore, LatentStore

OF_BITS = partial(AccumulatorStore, dtype=torch.float16, gradient_quantizer=SignGradient(packed=True, scale="none"))


def step(store) -> TrainingStep:
    """In six slices; of a network whose gradients outweigh its activations."""
    with torch.device("meta"):
        model = nn.Sequential(
            BinaryLinear(256, 512, store=store, input_quantizer=None),
            nn.BatchNorm1d(512),
            BinaryLinear(512, 10, store=store),
            nn.BatchNorm1d(10),
        )
        optimizer = Adam(model.parameters(), state_dtype=torch.float16)
    return TrainingStep(model=model, optimizer=optimizer, slice_size=4)


def total_bytes(taken: TrainingStep) -> int:
    return predicted.predict_step(taken, input_shape=(256,), batch_size=24).table.total_bytes


@pytest.mark.parametrize("store", [LatentStore, OF_BITS], ids=["dense gradients", "gradients of bits"])
def test_three_slices_tell_the_peak_of_all(store, monkeypatch):
    taken, forwards = step(store), []
    taken.model.register_forward_hook(lambda *_: forwards.append(1))
    few = total_bytes(taken)
    assert len(forwards) == 2 * 3, "three in each of two steps"
    monkeypatch.setattr(predicted, "_SLICES", 6)
    assert total_bytes(step(store)) == few


def test_a_single_slice_would_not_tell_that_gradients_of_bits_add_up_to_floats(monkeypatch):
    three = total_bytes(step(OF_BITS))
    monkeypatch.setattr(predicted, "_SLICES", 1)
    assert total_bytes(step(OF_BITS)) < three
