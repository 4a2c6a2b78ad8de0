"""`BinaryLayer`: what the binary layers share."""

import copy

import torch
from torch import Tensor, nn

from bnn.quantizers import Quantizer
from bnn.quantizers.gradients import GradientQuantizer
from bnn.weights import StoreFactory, WeightStore, make_store


class BinaryLayer(nn.Module):
    """A layer whose weight lives in a store and whose input goes through a quantizer.

    Attributes:
        store: the weight.
        input_quantizer: quantizer of the input, or None where the input is used as it comes.
        grad_quantizer: quantizer of the gradient of the product, or None.
        learned_scale: factor of each output channel that is trained, or None.
        bias: term of each output channel, or None.
    """

    store: WeightStore
    input_quantizer: Quantizer | None
    grad_quantizer: GradientQuantizer | None

    def __init__(
        self,
        weight_shape: tuple[int, ...],
        *,
        store: StoreFactory | None,
        input_quantizer: Quantizer | None,
        grad_quantizer: GradientQuantizer | None,
        learned_scale: bool,
        bias: bool,
    ) -> None:
        super().__init__()
        self.store = make_store(weight_shape, store)
        self.input_quantizer = copy.deepcopy(input_quantizer)
        self.grad_quantizer = copy.deepcopy(grad_quantizer)
        self.learned_scale = nn.Parameter(torch.ones(weight_shape[0])) if learned_scale else None
        self.bias = nn.Parameter(torch.zeros(weight_shape[0])) if bias else None

    @property
    def obstacle(self) -> str | None:
        """Why a block cannot keep the layer in bits and form its product again in backward; None where it can."""
        gradient, store = self.grad_quantizer, self.store
        if gradient is None or not gradient.gives_integers:
            return "the gradient of its product is not rounded to integers at random"
        if not store.is_binary:
            return f"its weight has the levels {store.levels or 'of floats'}"
        quantizer = self.input_quantizer
        if quantizer is not None and (not quantizer.is_sign or quantizer.slope_steps is None):
            return f"its input quantizer is {type(quantizer).__name__}, whose gradient has no few steps"
        return None

    def scale(self) -> Tensor | None:
        """The factor of each output channel, [out]: that of the store times the learned one; None for none."""
        factors = [factor for factor in (self.store.scale(), self.learned_scale) if factor is not None]
        if not factors:
            return None
        return factors[0] if len(factors) == 1 else factors[0] * factors[1]

    def quantized(self, x: Tensor) -> Tensor:
        """The quantized input, which enters the product."""
        return x if self.input_quantizer is None else self.input_quantizer(x)

    def scaled(self, product: Tensor, *, trailing_dims: int) -> Tensor:
        """The product times the scales of its channels, plus the bias.

        Args:
            product: [..., out] and as many dimensions as `trailing_dims` says.
            trailing_dims: dimensions after that of the channels.
        """
        channels = (-1, *[1] * trailing_dims)
        for factor in (self.store.scale(), self.learned_scale):
            if factor is not None:
                product = product * factor.view(channels)
        return product if self.bias is None else product + self.bias.view(channels)
