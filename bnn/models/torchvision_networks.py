"""The classifiers of torchvision, binary, by their names."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

from bnn.data import Preprocessing
from bnn.data.torchvision_import import import_torchvision
from bnn.errors import DataError, RecipeError, near_match
from bnn.models.conversion import Binarized, binarize
from bnn.quantizers import ApproxSign, Quantizer

PREFIX = "torchvision:"
"""What stands in front of the name where networks of several places are named."""

_COLOURS = 3


def torchvision_network(
    name: str,
    *,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    input_quantizer: Quantizer = ApproxSign(),  # noqa: B008  (a pattern, copied)
) -> Binarized:
    """A network of `torchvision.models`, binarized (`bnn.binarize`), with weights that are drawn; no floats of its size
    exist meanwhile.

    Args:
        name: such as `resnet18`.
        input_shape: (C, H, W) of the images.
        classes: outputs.
        input_quantizer: pattern for the binary layers' inputs.

    Raises:
        DataError: torchvision is not installed.
        RecipeError: it has no such classifier, or one that takes other images or cannot be listed in calls.
    """
    models = import_torchvision("models", needed_by=f"the network {PREFIX}{name}")
    require_network(name, models)
    try:
        with torch.device("meta"):
            model = models.get_model(name, weights=None, num_classes=classes)
    except NotImplementedError as error:
        raise RecipeError(f"{PREFIX}{name} cannot be made without memory: {str(error).splitlines()[0]}") from None
    if input_shape[0] != _COLOURS:
        _take_channels(model, input_shape[0])
    try:
        return binarize(model, input_shape=input_shape, input_quantizer=input_quantizer)
    except RecipeError as error:
        raise RecipeError(f"{PREFIX}{name}: {error}") from None


def pretrained_network(name: str) -> tuple[nn.Module, Preprocessing, int]:
    """A float classifier of torchvision with its published weights, which torchvision keeps, or fetches and checks.

    Args:
        name: such as `resnet34`.

    Returns:
        The network, what it takes, and how many classes of ImageNet it tells apart, in the order of their folders'
        names.

    Raises:
        DataError: torchvision is not installed, or cannot fetch the weights.
        RecipeError: it has no such classifier.
    """
    models = import_torchvision("models", needed_by=f"the network {name}")
    require_network(name, models)
    weights = models.get_model_weights(name).DEFAULT
    takes = weights.transforms()
    try:
        model: nn.Module = models.get_model(name, weights=weights, progress=False)
    except OSError as error:
        raise DataError(
            f"the weights of {name} cannot be fetched: {error}; put {weights.url.rpartition('/')[2]} into the"
            f" checkpoints of {torch.hub.get_dir()}"
        ) from None
    shape = (_COLOURS, *2 * takes.crop_size)
    return model, Preprocessing(shape, tuple(takes.mean), tuple(takes.std)), len(weights.meta["categories"])


def require_network(name: str, models: ModuleType | None = None) -> None:
    """Refuses what is no classifier of torchvision.

    Raises:
        DataError: torchvision is not installed.
        RecipeError: there is no such network.
    """
    models = models or import_torchvision("models", needed_by=f"the network {PREFIX}{name}")
    names = models.list_models(module=models)
    if name not in names:
        raise RecipeError(f"torchvision has no classifier {name!r}{near_match(name, names)}: see torchvision.models")


def _take_channels(model: nn.Module, channels: int) -> None:
    """Lets the first convolution take images of another number of channels."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == _COLOURS:
            with torch.device("meta"):
                first = nn.Conv2d(
                    channels,
                    module.out_channels,
                    module.kernel_size,  # type: ignore[arg-type]
                    module.stride,  # type: ignore[arg-type]
                    module.padding,  # type: ignore[arg-type]
                    bias=module.bias is not None,
                )
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], first)
            return
