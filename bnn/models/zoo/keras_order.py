"""A network's tensors in the order, the shapes and the layouts of a weight file of Keras."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnn.layers import BinaryBlock, BinaryLayer, BlurPool2d, HalfTurn
from bnn.models.resnet_imagenet import ResidualUnit
from bnn.models.zoo.real_to_binary import RealToBinaryUnit

_BLUR_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Slot:
    """A place for one tensor of a file."""

    kind: str
    """`kernel`, or `binary_kernel` of a binary layer; `bias`, `gamma`, `beta`, `moving_mean`, `moving_variance`,
    `alpha`; `blur` of a fixed kernel."""
    shape: tuple[int, ...]
    """As the file has it."""
    put: Callable[[Tensor], None]
    """Takes the file's tensor; raises a ValueError where the values cannot be right."""
    eps: float = 0.0
    """Of the norm that a variance belongs to."""


@dataclass(frozen=True)
class Layer:
    """A layer with tensors."""

    name: str
    """Of the module."""
    slots: tuple[Slot, ...]
    """Its tensors as the file lists them."""


def layers_of(model: nn.Sequential) -> list[Layer]:
    """The layers of a network of the zoo, in the order of the file of the same network in larq-zoo.

    Such files list layers by their distance from the output, and name them by numbers that say nothing.
    """
    names = {module: name for name, module in model.named_modules()}
    turned = isinstance(model[0], HalfTurn)
    layers: list[Layer] = []
    channels = 0
    for module in _in_order(model):
        layers += (Layer(names[module], tuple(slots)) for slots in _slots(module, turned, channels))
        channels = _channels(module) or channels
    return layers


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that have no others inside; of parallel branches, those of each in turn."""
    parts: Sequence[nn.Module | None] = list(module.children())
    if isinstance(module, ResidualUnit):
        conv, norm = _shortcut(module.shortcut)
        parts = (module.block.product, conv, module.block.norm, norm)
    elif isinstance(module, RealToBinaryUnit):
        conv, norm = _shortcut(module.shortcut)
        parts = (module.norm, module.gate, module.conv, conv, module.activation, norm)
    if isinstance(module, BinaryLayer) or not parts:
        yield module
        return
    for part in parts:
        if part is not None:
            yield from _in_order(part)


def _shortcut(shortcut: nn.Module | None) -> tuple[nn.Module | None, nn.Module | None]:
    """Convolution and norm of a shortcut that has them."""
    if not isinstance(shortcut, nn.Sequential):
        return None, None
    block = shortcut[1]
    assert isinstance(block, BinaryBlock)
    return block.product, block.norm


def _channels(module: nn.Module) -> int | None:
    """Channels that a convolution or a norm hands on."""
    if isinstance(module, BinaryLayer):
        return module.store.shape[0]
    if isinstance(module, _BatchNorm):
        return module.num_features
    return module.out_channels if isinstance(module, nn.Conv2d) else None


def _slots(module: nn.Module, turned: bool, channels: int) -> Iterator[list[Slot]]:
    """The tensors of a module, for each of the file's layers that stand for it; `channels`: of the images before it."""
    if isinstance(module, BinaryLayer):
        yield [_kernel("binary_kernel", module.store.trained, turned, channels)]
    elif isinstance(module, nn.Linear):
        yield [_kernel("kernel", module.weight, turned, channels), *_vectors({"bias": module.bias})]
    elif isinstance(module, nn.Conv2d):
        yield from _convolution(module, turned)
    elif isinstance(module, BlurPool2d):
        yield [Slot("blur", (3, 3, module.channels, 1), partial(_check_blur, module))]
    elif isinstance(module, _BatchNorm):
        values = {
            "gamma": module.weight,
            "beta": module.bias,
            "moving_mean": module.running_mean,
            "moving_variance": module.running_var,
        }
        yield _vectors(values, eps=module.eps)
    elif isinstance(module, nn.PReLU):
        yield [Slot("alpha", (1, 1, len(module.weight)), partial(_put, module.weight))]


def _convolution(conv: nn.Conv2d, turned: bool) -> Iterator[list[Slot]]:
    outputs, inputs, *size = conv.weight.shape
    if conv.groups == conv.in_channels:
        yield [Slot("kernel", (*size, outputs, 1), partial(_put_kernel, conv.weight, (2, 3, 0, 1), turned))]
        return
    # Groups are layers of their own there.
    for part in conv.weight.detach().chunk(conv.groups):
        put = partial(_put_kernel, part, (3, 2, 0, 1), turned)
        kernel = Slot("kernel", (*size, inputs, outputs // conv.groups), put)
        yield [kernel, *_vectors({"bias": conv.bias})]


def _kernel(kind: str, weight: Tensor, turned: bool, channels: int) -> Slot:
    if weight.dim() == 4:
        outputs, inputs, *size = weight.shape
        return Slot(kind, (*size, inputs, outputs), partial(_put_kernel, weight, (3, 2, 0, 1), turned))
    outputs, inputs = weight.shape
    pixels = inputs // channels if channels and inputs % channels == 0 else 1
    return Slot(kind, (inputs, outputs), partial(_put_linear, weight, pixels))


def _vectors(values: dict[str, Tensor | None], *, eps: float = 0.0) -> list[Slot]:
    return [
        Slot(kind, tuple(value.shape), partial(_put, value), eps) for kind, value in values.items() if value is not None
    ]


@torch.no_grad()
def _put(target: Tensor, value: Tensor) -> None:
    target.copy_(value.flatten())


@torch.no_grad()
def _put_kernel(target: Tensor, axes: tuple[int, ...], turned: bool, value: Tensor) -> None:
    value = value.permute(axes)
    target.copy_(value.flip(2, 3) if turned else value)


@torch.no_grad()
def _put_linear(target: Tensor, pixels: int, value: Tensor) -> None:
    """There, a flat image has its channels side by side; here, its pixels."""
    outputs, inputs = target.shape
    target.copy_(value.view(pixels, inputs // pixels, outputs).permute(2, 1, 0).reshape(outputs, inputs))


def _check_blur(blur: BlurPool2d, value: Tensor) -> None:
    difference = (value.permute(2, 3, 0, 1) - blur.kernel(value)).abs().max()
    if not difference <= _BLUR_TOLERANCE:
        raise ValueError("it is a blur of another kernel than [1 2 1] x [1 2 1] / 16")
