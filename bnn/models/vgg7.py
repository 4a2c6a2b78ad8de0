"""VGG-7: the network of real activations with which methods for weights of few levels are compared on CIFAR-10."""

from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d
from bnn.weights import StoreFactory


def vgg7(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    width: int = 128,
    hidden: int = 1024,
    store: StoreFactory | None = None,
) -> nn.Sequential:
    """Six 3x3 convolutions (1, 1, 2, 2, 4 and 4 times the width), every second pooled, and two linear layers.

    12,973,440 weights at the defaults, of which 12,959,744 binary: stem and classifier are real, and so are all
    activations. Batch norm and ReLU follow each layer but the last. Source: Li et al. 2016 (ternary weight networks),
    arXiv 1605.04711, the network for CIFAR-10.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 8.
        classes: outputs.
        width: channels of the first convolution.
        hidden: outputs of the first linear layer.
        store: makes the stores of the layers between stem and classifier; by default `bnn.weights.default_store`'s.
    """
    channels, height, width_pixels = input_shape
    layers: list[nn.Module] = []
    for i, times in enumerate((1, 1, 2, 2, 4, 4)):
        outputs = times * width
        norm = nn.BatchNorm2d(outputs)
        if i == 0:
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), norm]
        else:
            conv = BinaryConv2d(channels, outputs, 3, padding=1, store=store, input_quantizer=None)
            layers.append(BinaryBlock(conv, norm, pool=MaxPool2d(2) if i % 2 else None))
        layers.append(nn.ReLU())
        channels = outputs
    features = channels * (height // 8) * (width_pixels // 8)
    layers += [
        nn.Flatten(),
        BinaryBlock(BinaryLinear(features, hidden, store=store, input_quantizer=None), nn.BatchNorm1d(hidden)),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    ]
    return nn.Sequential(*layers)
