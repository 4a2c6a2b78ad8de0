from functools import partial

import pytest
import torch
from torch import nn

from bnn.data.bundled_digits import digits
from bnn.errors import RecipeError
from bnn.models import mlp
from bnn.models.symmetry import distinct_shares, distinct_units, initialize_symmetric
from bnn.presets import prepare
from bnn.training import TrainingStep
from tests.contracts import bits_of

DIGITS = digits()


def arrays(split) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.as_tensor(split.images[:]).float()
    return (images - 4.9) / 6.0, torch.as_tensor(split.labels).long()


def trained(step: TrainingStep, epochs: int) -> float:
    """The accuracy after some epochs without any randomness but the order."""
    x, y = arrays(DIGITS.train)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(50):
            step.take(x[rows], y[rows])
    x, y = arrays(DIGITS.test)
    step.model.eval()
    with torch.no_grad():
        return float((step.model(x).argmax(1) == y).float().mean())


def binary(noise: float) -> TrainingStep:
    step = prepare("standard", partial(mlp, input_shape=(1, 8, 8), hidden=(32, 32)), input_shape=(1, 8, 8))
    initialize_symmetric(step.model, noise=noise, generator=torch.Generator().manual_seed(0))
    return step


def real(noise: float) -> TrainingStep:
    layers = (nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    model = nn.Sequential(*layers)
    initialize_symmetric(model, noise=noise, generator=torch.Generator().manual_seed(0))
    return TrainingStep(model=model, optimizer=torch.optim.Adam(model.parameters(), lr=3e-3))


@pytest.mark.parametrize("make", [real, pytest.param(binary, marks=pytest.mark.slow)])
def test_equal_units_stay_equal(make):
    step = make(0.0)
    accuracy = trained(step, 2)
    assert accuracy < 0.4
    weights = [layer.weight for layer in step.model if isinstance(layer, nn.Linear)]
    if make is binary:
        assert distinct_shares(step.model) == {"1.product": 1 / 32, "2.product": 1 / 32, "3.product": 1 / 10}
    else:
        assert [distinct_units(weight) for weight in weights[:2]] == [1, 1]
        assert torch.linalg.matrix_rank(weights[1].detach()) == 1


@pytest.mark.slow
def test_a_tenth_of_noise_lets_binary_units_differ():
    step = binary(0.1)
    assert set(distinct_shares(step.model).values()) == {1 / 32, 1 / 10}  # their signs still begin alike
    assert trained(step, 8) > 0.6
    assert min(distinct_shares(step.model).values()) > 0.9


@pytest.mark.slow
def test_real_units_need_more():
    """1e-2 of a weight of 1 / 64; 1e-4 leaves them alike."""
    assert trained(real(0.64), 20) > 0.8
    assert trained(real(0.0064), 3) < 0.6


def test_noise_is_in_parts_of_the_magnitude():
    model = nn.Sequential(nn.Linear(400, 300))
    initialize_symmetric(model, noise=0.1, generator=torch.Generator().manual_seed(0))
    weight = model[0].weight.detach()
    assert weight.mean().item() == pytest.approx(1 / 400, rel=1e-3)
    assert weight.std().item() == pytest.approx(0.1 / 400, rel=0.02)
    assert not model[0].bias.any()


def test_units_of_bits_are_counted():
    bits = bits_of(3, 5)
    assert distinct_units(torch.cat([bits.dense(), bits.dense()[:1]])) == distinct_units(bits) == 3


def test_errors():
    with pytest.raises(RecipeError, match="noise needs a generator"):
        initialize_symmetric(nn.Linear(2, 2), noise=0.1)
    step = prepare("edge-min", partial(mlp, input_shape=(1, 8, 8), hidden=(8,)), input_shape=(1, 8, 8))
    with pytest.raises(RecipeError, match=r"layer 1\.product has no latent weights of floats to begin alike"):
        initialize_symmetric(step.model)
