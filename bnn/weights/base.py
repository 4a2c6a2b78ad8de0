"""`WeightStore`: what holds the weight of a binary layer, and what every store provides."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.errors import RecipeError
from bnn.ops.geometry import Window
from bnn.quantizers import Quantizer
from bnn.quantizers.gradients import GradientQuantizer


class WeightStore(nn.Module):
    """Holds one weight tensor and reads it as levels.

    Other code uses these attributes and methods and never tests the class of a store.

    Attributes:
        shape: shape of the weight, [out, ...].
        storage_bits: bits that one weight takes once training has ended.
        training_bits: bits that the store keeps of one weight while it is trained, without its optimizer's state.
        levels: the values that `read` can return, ascending; empty where they are real.
        quantizer: makes the levels from the trained value; None where the store does it itself.
        gradient_quantizer: quantizer of the gradient of what is read, or None.
    """

    shape: tuple[int, ...]
    storage_bits: int
    training_bits: int
    levels: tuple[float, ...] = ()
    quantizer: Quantizer | None
    gradient_quantizer: GradientQuantizer | None

    def __init__(self) -> None:
        super().__init__()
        self.quantizer = None
        self.gradient_quantizer = None

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def is_binary(self) -> bool:
        """Whether what is read is a `BitTensor`."""
        return self.levels == (-1.0, 1.0)

    @property
    def has_latent_weight(self) -> bool:
        """Whether the levels are made of a real weight, which is what is trained."""
        return True

    @property
    def scales(self) -> bool:
        """Whether `scale` gives a factor."""
        return type(self).scale is not WeightStore.scale

    def read(self) -> Tensor:
        """The weight as levels, with a gradient to what is trained; a `BitTensor` where they are -1 and +1."""
        raise NotImplementedError

    def read_apart(self) -> tuple[BitTensor, Callable[[Tensor], None]] | None:
        """What `read` gives without its gradient, and what that is handed to, for a node of autograd to do so itself.

        None where the gradient goes to what is trained by autograd alone.
        """
        return None

    def scale(self) -> Tensor | None:
        """Factor of each output channel, [out], or None."""
        return None

    def product(self, x: Tensor, window: Window | None) -> Tensor | None:
        """The product of a layer's quantized input, where the store makes it itself, as an array of devices does.

        Args:
            x: [..., K], or images [N, C, H, W].
            window: of the convolution, or None.

        Returns:
            What `F.linear` or `F.conv2d` would give, as near as the store can; None where layers multiply by `read`.
        """
        return None

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights."""
        raise NotImplementedError

    def assign(self, values: Tensor) -> None:
        """Begins with other weights: real values of the weight's shape, of which the signs and their order count.

        Raises:
            RecipeError: the store cannot take real values.
        """
        raise RecipeError(f"a {type(self).__name__} cannot begin with the weights of another network")

    def project_(self) -> None:
        """Projects the trained parameter, in place, as the method requires. Called after every update."""

    @property
    def trained(self) -> nn.Parameter:
        """The parameter that an optimizer steps in place of the weight."""
        return next(self.parameters())

    def trained_value(self) -> Tensor:
        """The value that the weight is made of, such as a latent weight: floating, without gradient.

        It may be the parameter itself: do not change it.
        """
        return self.trained.detach()

    def sign_planes(self) -> tuple[Tensor, ...]:
        """The weight's signs as bits, a copy: which are above 0 and, unless all levels are ±1, which are below.

        Returns:
            uint8 [rows, bytes] each, as in `BitTensor.packed`; the bits that fill up a row are 0.
        """
        with torch.no_grad():
            levels = self.read()
        if isinstance(levels, BitTensor):
            return (levels.packed.clone(),)
        return BitTensor.from_dense(levels > 0).packed, BitTensor.from_dense(levels < 0).packed

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}"


class StoreFactory(Protocol):
    """Makes the stores of a layer or model: a store class, or `functools.partial` of one."""

    def __call__(self, shape: Sequence[int], /) -> WeightStore:
        """A store for a weight of `shape`."""
        ...


def named_stores(model: nn.Module) -> Iterator[tuple[str, WeightStore]]:
    """The stores of a model, each with the name of its layer."""
    for name, module in model.named_modules():
        if isinstance(module, WeightStore):
            yield name.rpartition(".")[0] or name, module
