"""BinaryNet: the VGG-like binary network for 32x32 images."""

from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d, NormFactory
from bnn.quantizers import Sign
from bnn.weights import StoreFactory


def binarynet(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    store: StoreFactory | None = None,
    norm: NormFactory | None = None,
) -> nn.Sequential:
    """Six 3x3 convolutions (128, 128, 256, 256, 512, 512) and three linear layers (1024, 1024, classes).

    14,022,016 weights at the defaults, all binary; every second convolution is pooled before its batch norm. The
    first layer takes the real input. Source: Courbariaux et al. 2016, arXiv 1602.02830; with zero padding and in
    the layer order of Wang et al., arXiv 2102.04270.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 8.
        classes: outputs.
        store: makes the weights' stores; by default `bnn.weights.default_store`'s.
        norm: makes the norms before a sign, such as `BinaryNorm`; by default torch's batch norm.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        conv = BinaryConv2d(channels, outputs, 3, padding=1, store=store)
        if i == 0:
            conv.input_quantizer = None
        pool = MaxPool2d(2) if i % 2 else None
        layers.append(BinaryBlock(conv, (norm or nn.BatchNorm2d)(outputs), pool=pool, activation=Sign()))
        channels = outputs
    layers.append(nn.Flatten())
    features = channels * (height // 8) * (width // 8)
    for outputs in (1024, 1024):
        linear = BinaryLinear(features, outputs, store=store)
        layers.append(BinaryBlock(linear, (norm or nn.BatchNorm1d)(outputs), activation=Sign()))
        features = outputs
    layers.append(BinaryBlock(BinaryLinear(features, classes, store=store), nn.BatchNorm1d(classes)))
    return nn.Sequential(*layers)
