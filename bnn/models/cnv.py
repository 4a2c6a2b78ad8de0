"""CNV: the small all-binary network of the FPGA literature."""

from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d, NormFactory
from bnn.quantizers import Sign
from bnn.weights import StoreFactory


def cnv(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    store: StoreFactory | None = None,
    norm: NormFactory | None = None,
) -> nn.Sequential:
    """Six 3x3 convolutions without padding (64, 64, 128, 128, 256, 256) and three linear layers (512, 512, classes).

    1,542,848 weights at the defaults, all binary; signs are taken before the pooling, which is then an OR of bits.
    The first layer takes the real input. Source: Umuroglu et al. 2017 (FINN), arXiv 1612.07119; layer order of
    Wang et al., arXiv 2102.04270.

    Args:
        input_shape: (C, H, W) of the images; H and W are at least 32.
        classes: outputs.
        store: makes the weights' stores; by default `bnn.weights.default_store`'s.
        norm: makes the norms before a sign, such as `BinaryNorm`; by default torch's batch norm.
    """
    channels, height, width = input_shape
    if min(height, width) < 32:
        raise ValueError(f"cnv takes images of at least 32x32, got {height}x{width}")
    layers: list[nn.Module] = []
    for i, outputs in enumerate((64, 64, 128, 128, 256, 256)):
        conv = BinaryConv2d(channels, outputs, 3, store=store, input_quantizer=None)
        layers.append(BinaryBlock(conv, (norm or nn.BatchNorm2d)(outputs), activation=Sign()))
        height, width = height - 2, width - 2
        if i in (1, 3):
            layers.append(MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = outputs
    layers.append(nn.Flatten())
    features = channels * height * width
    for outputs in (512, 512):
        linear = BinaryLinear(features, outputs, store=store)
        layers.append(BinaryBlock(linear, (norm or nn.BatchNorm1d)(outputs), activation=Sign()))
        features = outputs
    layers.append(BinaryBlock(BinaryLinear(features, classes, store=store), nn.BatchNorm1d(classes)))
    return nn.Sequential(*layers)
