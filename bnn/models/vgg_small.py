"""VGG-small: the plain convolutional network of the CIFAR comparisons."""

from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, MaxPool2d
from bnn.quantizers import ApproxSign, Quantizer
from bnn.weights import StoreFactory


def vgg_small(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    width: int = 128,
    store: StoreFactory | None = None,
    input_quantizer: Quantizer | None = ApproxSign(),  # noqa: B008  (a pattern, copied)
) -> nn.Sequential:
    """A real and five binary 3x3 convolutions (128, 128, 256, 256, 512, 512) and a real classifier.

    4,656,512 weights at the defaults, of which 4,571,136 binary. Pooling comes before the batch norm, which is
    followed by Hardtanh; each binary convolution has a learned scale. Source: Zhang et al. 2018 (LQ-Nets),
    arXiv 1807.10029, as built by ReCU's public code.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 8.
        classes: outputs.
        width: channels of the first two convolutions; the later pairs have twice and four times as many.
        store: makes the binary weights' stores; by default `bnn.weights.default_store`'s.
        input_quantizer: pattern for the binary convolutions' inputs; None leaves them real.
    """
    channels, *size = input_shape
    layers: list[nn.Module] = []
    for i, outputs in enumerate((width, width, 2 * width, 2 * width, 4 * width, 4 * width)):
        conv: BinaryConv2d | nn.Conv2d
        if i == 0:
            conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        else:
            conv = BinaryConv2d(
                channels, outputs, 3, padding=1, store=store, input_quantizer=input_quantizer, learned_scale=True
            )
        pool = MaxPool2d(2) if i % 2 else None
        layers.append(BinaryBlock(conv, nn.BatchNorm2d(outputs), pool=pool, activation=nn.Hardtanh()))
        channels = outputs
    layers += [nn.Flatten(), nn.Linear(channels * (size[0] // 8) * (size[1] // 8), classes)]
    return nn.Sequential(*layers)
