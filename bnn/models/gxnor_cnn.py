"""The networks of GXNOR-Net, ternary in weights and activations."""

from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d
from bnn.quantizers import Quantizer, Ternary
from bnn.weights import DiscreteStore, StoreFactory

_TERNARY = Ternary(threshold=0.5, surrogate="rectangular", window=0.5)
_NORM_EPS = 1e-4  # that of the paper's public code


def gxnor_cnn(
    *,
    input_shape: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    store: StoreFactory = DiscreteStore,
    input_quantizer: Quantizer = _TERNARY,
) -> nn.Sequential:
    """Two 5x5 convolutions without padding (32, 64), each pooled, and two linear layers (512, classes).

    581,408 weights at the defaults, in every layer ternary; a batch norm follows each, after the pooling. The first
    layer takes the real input. Source: Deng et al. 2018 (GXNOR-Net), arXiv 1705.09283, the network for MNIST, in the
    order of its public code.

    Args:
        input_shape: (C, H, W) of the images; H and W are at least 16.
        classes: outputs.
        store: makes the weights' stores.
        input_quantizer: pattern for the layers' inputs, but for the first.
    """
    channels, height, width = input_shape
    if min(height, width) < 16:
        raise ValueError(f"gxnor_cnn takes images of at least 16x16, got {height}x{width}")
    layers: list[nn.Module] = []
    for outputs in (32, 64):
        conv = BinaryConv2d(channels, outputs, 5, store=store, input_quantizer=input_quantizer if layers else None)
        layers.append(BinaryBlock(conv, nn.BatchNorm2d(outputs, eps=_NORM_EPS), pool=MaxPool2d(2)))
        channels, height, width = outputs, (height - 4) // 2, (width - 4) // 2
    return nn.Sequential(*layers, *_classifier(channels * height * width, 512, classes, store, input_quantizer))


def gxnor_vgg(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    store: StoreFactory = DiscreteStore,
    input_quantizer: Quantizer = _TERNARY,
) -> nn.Sequential:
    """Six 3x3 convolutions (128, 128, 256, 256, 512, 512), every second pooled, and two linear layers (1024, classes).

    12,973,440 weights at the defaults, in every layer ternary; a batch norm follows each, after the pooling. The
    first layer takes the real input. Source: Deng et al. 2018 (GXNOR-Net), arXiv 1705.09283, the network for
    CIFAR-10, in the order of its public code; convolutions are padded with zeros.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 8.
        classes: outputs.
        store: makes the weights' stores.
        input_quantizer: pattern for the layers' inputs, but for the first.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        quantizer = input_quantizer if layers else None
        conv = BinaryConv2d(channels, outputs, 3, padding=1, store=store, input_quantizer=quantizer)
        pool = MaxPool2d(2) if i % 2 else None
        layers.append(BinaryBlock(conv, nn.BatchNorm2d(outputs, eps=_NORM_EPS), pool=pool))
        channels = outputs
    features = channels * (height // 8) * (width // 8)
    return nn.Sequential(*layers, *_classifier(features, 1024, classes, store, input_quantizer))


def _classifier(
    features: int, hidden: int, classes: int, store: StoreFactory, input_quantizer: Quantizer
) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    for outputs in (hidden, classes):
        linear = BinaryLinear(features, outputs, store=store, input_quantizer=input_quantizer)
        layers.append(BinaryBlock(linear, nn.BatchNorm1d(outputs, eps=_NORM_EPS)))
        features = outputs
    return layers
