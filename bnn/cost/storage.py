"""The storage that a trained network takes."""

from dataclasses import dataclass

from torch import nn

from bnn.weights import WeightStore

_FLOAT_BITS = 32


@dataclass(frozen=True)
class Storage:
    """Parameters of a network by the bits that they take once training has ended."""

    weights: int
    """Weights of binary, convolutional and linear layers."""
    discrete_weights: int
    """Weights among them that live in a store, at its few bits."""
    weight_bits: int
    """Bits of all weights together."""
    other_parameters: int
    """Biases, scales and norms, at 32 bits; running statistics are not parameters."""

    @property
    def bits_per_weight(self) -> float:
        """Mean bits of a weight."""
        return self.weight_bits / self.weights if self.weights else 0.0


def storage(model: nn.Module) -> Storage:
    """Counts the parameters of a model."""
    stores = [module for module in model.modules() if isinstance(module, WeightStore)]
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    discrete = sum(store.size for store in stores)
    real = sum(layer.weight.numel() for layer in layers)
    # What a store holds to train its weight, such as a latent tensor, is not what the trained weight takes.
    in_stores = {id(parameter) for store in stores for parameter in store.parameters()}
    outside = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in in_stores)
    return Storage(
        weights=discrete + real,
        discrete_weights=discrete,
        weight_bits=sum(store.size * store.storage_bits for store in stores) + _FLOAT_BITS * real,
        other_parameters=outside - real,
    )
