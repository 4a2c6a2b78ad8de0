"""Networks whose units all begin alike, and how many of them a training has told apart.

Equal units get equal gradients: where arithmetic is the same every time, as here, they stay equal for ever, and a layer
is as good as one unit. What lets them differ is noise, of the start or of the training, such as dropout; the networks
of ConstNet train without any on hardware whose sums differ from unit to unit. Noise at the start grows, so that how
much is enough depends on how long a network trains: of a real perceptron with weights of 1/64, noise of 1e-2 gives 82
to 90 % on the bundled digits after 10 epochs and 96 to 97 after 60, noise of 1e-4 22 % and, after 40, 94. Source:
Blumenfeld, Gilboa and Soudry, arXiv 1912.05137 (2019) and 2007.01038 (2020).
"""

import math

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.errors import RecipeError
from bnn.weights import WeightStore, named_stores


@torch.no_grad()
def initialize_symmetric(model: nn.Module, *, noise: float = 0.0, generator: torch.Generator | None = None) -> None:
    """Makes all units of each layer equal: real ones average their inputs, latent weights of binary ones are positive.

    Biases are 0. The magnitude of latent weights is that of drawn ones, 1 / sqrt(fan-in).

    Args:
        model: its binary layers have latent weights.
        noise: standard deviation, in parts of a weight's magnitude, of what is added to each weight; at least 0.
        generator: of the noise; needed where there is some.

    Raises:
        RecipeError: a store has no latent floats, or the noise has no generator.
    """
    if noise and generator is None:
        raise RecipeError("noise needs a generator, so that the same seed gives the same network")
    for name, store in named_stores(model):
        if not store.has_latent_weight or not store.trained.is_floating_point():
            raise RecipeError(f"layer {name} has no latent weights of floats to begin alike: take the preset standard")
        _fill(store.trained, 1 / math.sqrt(math.prod(store.shape[1:])), noise, generator)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            _fill(module.weight, 1 / math.prod(module.weight.shape[1:]), noise, generator)
            if module.bias is not None:
                module.bias.zero_()


def distinct_units(weight: Tensor) -> int:
    """How many different units a weight [out, ...] has: of binary weights different patterns of signs."""
    values = weight.dense() if isinstance(weight, BitTensor) else weight
    return len(torch.unique(values.detach().flatten(1), dim=0))


def distinct_shares(model: nn.Module) -> dict[str, float]:
    """Of each binary layer, by its name, the share of units that differ, in (0, 1]; 1 where all do."""
    return {name: _share(store) for name, store in named_stores(model)}


def _share(store: WeightStore) -> float:
    with torch.no_grad():
        return distinct_units(store.read()) / store.shape[0]


def _fill(weight: Tensor, value: float, noise: float, generator: torch.Generator | None) -> None:
    weight.fill_(value)
    if noise:
        weight.add_(torch.empty_like(weight).normal_(std=noise * value, generator=generator))
