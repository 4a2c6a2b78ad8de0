"""Networks in the shape of AlexNet: BinaryAlexNet, XNOR-Net and DoReFa-Net."""

import math
from functools import partial

from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d, OffsetBatchNorm
from bnn.models.zoo.parts import InputShape, latent
from bnn.quantizers import DoReFa, ScaledSign, Sign

_HIDDEN = 4096

Size = tuple[int, int]
"""Height and width."""


def binary_alexnet(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """BinaryAlexNet: five convolutions and three linear layers.

    61,827,776 weights at the defaults, all binary; the first layer takes the image as it is. Source: larq-zoo.

    Args:
        input_shape: (C, H, W) of the images, from 57x57 on.
        classes: outputs.
    """
    image = input_shape[1:]
    first = _halved(_strided(image))
    height, width = _halved(_halved(first))
    _check("binary_alexnet", image, min(height, width))
    store = latent(Sign(), limit=1.0)
    conv, linear = partial(BinaryConv2d, store=store), partial(BinaryLinear, store=store)

    def block(product: BinaryConv2d | BinaryLinear, pool: MaxPool2d | None = None) -> BinaryBlock:
        return BinaryBlock(product, OffsetBatchNorm(product.store.shape[0], eps=1e-3), pool=pool)

    return nn.Sequential(
        _padding(image, 11, 4),
        block(conv(input_shape[0], 64, 11, stride=4, input_quantizer=None), MaxPool2d(3, stride=2)),
        block(conv(64, 192, 5, padding=2), MaxPool2d(3, stride=2)),
        block(conv(192, 384, 3, padding=1)),
        block(conv(384, 384, 3, padding=1)),
        block(conv(384, 256, 3, padding=1), MaxPool2d(3, stride=2)),
        nn.Flatten(),
        block(linear(256 * height * width, _HIDDEN)),
        block(linear(_HIDDEN, _HIDDEN)),
        block(linear(_HIDDEN, classes)),
    )


def xnornet(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """XNOR-Net: AlexNet whose filters, but those of the first and last layer, are scaled by their mean |w|.

    62,367,776 weights at the defaults, of which 58,236,928 binary. Source: Rastegari et al. 2016, arXiv 1603.05279, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images, from 217x217 on to 248x248.
        classes: outputs.
    """
    image = input_shape[1:]
    if _halved(_halved(_halved(_strided(image)))) != (6, 6):
        raise ValueError(f"xnornet takes images of 217x217 to 248x248, got {'x'.join(map(str, image))}")
    conv = partial(BinaryConv2d, store=latent(ScaledSign(clip=1.0), limit=1.0))

    def block(product: BinaryConv2d, pool: MaxPool2d | None = None, *, eps: float = 1e-4) -> BinaryBlock:
        return BinaryBlock(product, OffsetBatchNorm(product.out_channels, eps=eps), pool=pool)

    stem = nn.Conv2d(input_shape[0], 96, 11, stride=4, bias=False)
    return nn.Sequential(
        _padding(image, 11, 4),
        BinaryBlock(stem, OffsetBatchNorm(96, eps=1e-5), activation=nn.ReLU()),
        MaxPool2d(3, stride=2),
        OffsetBatchNorm(96, eps=1e-4),
        block(conv(96, 256, 5, padding=2), MaxPool2d(3, stride=2)),
        block(conv(256, 384, 3, padding=1)),
        block(conv(384, 384, 3, padding=1)),
        block(conv(384, 256, 3, padding=1), MaxPool2d(3, stride=2)),
        block(conv(256, _HIDDEN, 6)),
        block(conv(_HIDDEN, _HIDDEN, 1), eps=1e-3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(_HIDDEN, classes, bias=False),
    )


def dorefanet(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """DoReFa-Net: AlexNet with weights of 1 bit, scaled by the mean |w| of their layer, and inputs of 2 bits.

    62,374,400 weights at the defaults, of which 58,236,928 binary. Source: Zhou et al. 2016, arXiv 1606.06160, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images, from 44x44 on.
        classes: outputs.
    """
    image = input_shape[1:]
    first: Size = ((image[0] - 12) // 4 + 1, (image[1] - 12) // 4 + 1)
    second: Size = (math.ceil(first[0] / 2), math.ceil(first[1] / 2))
    height, width = _halved((math.ceil(second[0] / 2), math.ceil(second[1] / 2)))
    _check("dorefanet", image, min(height, width))
    store = latent(ScaledSign(window=math.inf, scope="layer", constant=True), limit=None)
    conv = partial(BinaryConv2d, store=store, input_quantizer=DoReFa(bits=2))
    linear = partial(BinaryLinear, store=store, input_quantizer=DoReFa(bits=2))

    def block(product: BinaryConv2d | BinaryLinear, activation: nn.Module | None = None) -> BinaryBlock:
        return BinaryBlock(product, OffsetBatchNorm(product.store.shape[0], eps=1e-4), activation=activation)

    # A zero around the image does not change what is clamped to [0, 1] afterwards.
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 96, 12, stride=4),
        block(conv(96, 256, 5, padding=2)),
        _padding(first, 3, 2),
        MaxPool2d(3, stride=2),
        block(conv(256, 384, 3, padding=1)),
        _padding(second, 3, 2),
        MaxPool2d(3, stride=2),
        block(conv(384, 384, 3, padding=1)),
        block(conv(384, 256, 3, padding=1)),
        MaxPool2d(3, stride=2),
        nn.Flatten(),
        block(linear(256 * height * width, _HIDDEN)),
        block(linear(_HIDDEN, _HIDDEN), nn.Hardtanh(0.0, 1.0)),
        nn.Linear(_HIDDEN, classes),
    )


def _padding(size: Size, kernel: int, stride: int) -> nn.ZeroPad2d:
    """TensorFlow's padding `same`, whose larger half comes behind the image."""
    sides = []
    for pixels in reversed(size):
        pad = max(0, (math.ceil(pixels / stride) - 1) * stride + kernel - pixels)
        sides += [pad // 2, pad - pad // 2]
    return nn.ZeroPad2d((sides[0], sides[1], sides[2], sides[3]))


def _strided(size: Size) -> Size:
    """What a stride of 4 leaves."""
    return math.ceil(size[0] / 4), math.ceil(size[1] / 4)


def _halved(size: Size) -> Size:
    """What a pooling of 3x3 windows with a stride of 2 leaves."""
    return (size[0] - 3) // 2 + 1, (size[1] - 3) // 2 + 1


def _check(name: str, image: Size, left: int) -> None:
    if left < 1:
        raise ValueError(f"{name} leaves nothing of images of {'x'.join(map(str, image))}: give larger ones")
