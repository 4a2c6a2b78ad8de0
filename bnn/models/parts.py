"""Other parts for a network: gradient quantizers, norms and a classifier in place of those that it was built with."""

import copy
from collections.abc import Callable

from torch import nn

from bnn.errors import RecipeError
from bnn.layers import BinaryBlock, BinaryLayer, BinaryLinear, HadamardClassifier, NormFactory
from bnn.quantizers.gradients import GradientQuantizer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def quantize_gradients(model: nn.Module, make: Callable[[BinaryLayer], GradientQuantizer | None]) -> None:
    """Gives every binary layer another quantizer of its product's gradient.

    Args:
        model: changed in place.
        make: the quantizer of a layer, which is copied; None for none.
    """
    for module in model.modules():
        if isinstance(module, BinaryLayer):
            module.grad_quantizer = copy.deepcopy(make(module))


def replace_norms(model: nn.Module, make: NormFactory) -> int:
    """Puts other norms in the place of torch's batch norms, those inside blocks included; gives how many.

    Args:
        model: changed in place.
        make: a norm for a number of channels.
    """
    found = [
        (module, name, norm)
        for module in model.modules()
        for name, norm in module.named_children()
        if isinstance(norm, _NORMS)
    ]
    for module, name, norm in found:
        setattr(module, name, make(norm.num_features))
    return len(found)


def replace_classifier(model: nn.Sequential) -> None:
    """Puts a `HadamardClassifier` in the place of a network's last linear layer, and of the norm of its block.

    Args:
        model: changed in place.

    Raises:
        RecipeError: the last module is no linear layer, nor a block of one.
    """
    last = model[-1]
    product = last.product if isinstance(last, BinaryBlock) else last
    if not isinstance(product, (BinaryLinear, nn.Linear)):
        raise RecipeError(
            f"a Hadamard classifier takes the place of a linear layer, and the last is a {type(last).__name__}"
        )
    model[-1] = HadamardClassifier(product.in_features, product.out_features)
