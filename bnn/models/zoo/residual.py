"""ResNetE-18 and Bi-Real Net as larq-zoo has them: a shortcut around every binary convolution."""

from torch import nn

from bnn.layers import BinaryBlock, HalfTurn, MaxPool2d, NormFactory
from bnn.models.resnet_imagenet import ResidualUnit
from bnn.models.zoo.parts import InputShape, check_shape, classifier, latent, norms
from bnn.quantizers import ApproxSign, Quantizer, ScaledSign, Sign
from bnn.weights import StoreFactory


def binary_resnet_e18(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """ResNetE-18: 16 binary 3x3 convolutions of widths 64 to 512, each with its own shortcut.

    11,678,912 weights at the defaults, of which 10,985,472 binary. `bnn.models.resnete18` has a norm in front of the
    stem and another window. Source: Bethge et al. 2019, arXiv 1906.08637, and larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    check_shape("binary_resnet_e18", input_shape)
    norm = norms(eps=1e-5, momentum=0.9)
    sign = Sign(window=1.25)
    stages = _stages(store=latent(sign, limit=1.25), input_quantizer=sign, norm=norm)
    stem = [*_stem(input_shape[0], norm, activation=nn.ReLU()), norm(64)]
    return nn.Sequential(HalfTurn(), *stem, *stages, nn.ReLU(), *classifier(512, classes))


def birealnet(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """Bi-Real Net of 18 layers: as ResNetE-18, with the polynomial sign gradient and filters scaled by their mean |w|.

    11,678,912 weights at the defaults, of which 10,985,472 binary. `bnn.models.birealnet18` has norms and activations
    in other places. Source: Liu et al. 2018, arXiv 1808.00278, and larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    check_shape("birealnet", input_shape)
    norm = norms(eps=1e-3, momentum=0.8)
    store = latent(ScaledSign(constant=True), limit=1.0)
    stages = _stages(store=store, input_quantizer=ApproxSign(), norm=norm)
    stem = _stem(input_shape[0], norm, activation=None)
    return nn.Sequential(HalfTurn(), *stem, *stages, *classifier(512, classes))


def _stem(inputs: int, norm: NormFactory, *, activation: nn.Module | None) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, 64, 7, stride=2, padding=3, bias=False)
    return [BinaryBlock(conv, norm(64), activation=activation), MaxPool2d(3, stride=2, padding=1)]


def _stages(*, store: StoreFactory, input_quantizer: Quantizer, norm: NormFactory) -> list[nn.Module]:
    units: list[nn.Module] = []
    inputs = 64
    for width in (64, 128, 256, 512):
        for stride in (1 if width == 64 else 2, 1, 1, 1):
            unit = ResidualUnit(inputs, width, stride=stride, store=store, input_quantizer=input_quantizer, norm=norm)
            units.append(unit)
            inputs = width
    return units
