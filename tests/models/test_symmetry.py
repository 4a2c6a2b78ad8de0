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


def real(noise: float, *, width: int = 32, rate: float = 3e-3, dropout: float = 0.0) -> TrainingStep:
    hidden = [part for inputs in (64, width) for part in (nn.Linear(inputs, width), nn.ReLU(), *_dropout(dropout))]
    model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))
    initialize_symmetric(model, noise=noise, generator=torch.Generator().manual_seed(0))
    return TrainingStep(model=model, optimizer=torch.optim.Adam(model.parameters(), lr=rate))


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []


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
@pytest.mark.parametrize(
    ("options", "epochs", "low", "high"),
    [
        ({"noise": 0.64}, 10, 0.70, 0.94),
        ({"noise": 0.64}, 60, 0.95, 0.99),
        ({"noise": 0.0064}, 10, 0.1, 0.45),
        ({"noise": 0.0064}, 60, 0.85, 0.99),
        ({"noise": 0.0, "dropout": 0.02}, 10, 0.2, 0.6),
        ({"noise": 0.0, "dropout": 0.02}, 60, 0.85, 0.99),
    ],
)
def test_how_far_real_units_are_apart_is_a_matter_of_time(options, epochs, low, high):
    """Noise of 1e-2 and 1e-4 beside weights of 1 / 64, and dropout: those have 97, 26 and 37 % in the references."""
    torch.manual_seed(0)
    assert low < trained(real(width=64, rate=1e-3, **options), epochs) < high


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
