"""Real-to-Binary network: each binary convolution's channels are scaled by what its real input says."""

from torch import Tensor, nn

from bnn.layers import AvgPool2d, BinaryBlock, GlobalAvgPool2d, HalfTurn, MaxPool2d
from bnn.models.zoo.parts import InputShape, check_shape, classifier, norms, sign_conv

_REDUCTION = 8
_norm = norms(eps=1e-3, momentum=0.99)


def real_to_binary_net(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """Real-to-Binary network of 18 layers: 16 binary 3x3 convolutions of widths 64 to 512.

    11,973,312 weights at the defaults, of which 10,985,472 binary. Source: Martinez et al. 2020, arXiv 2003.11535, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    check_shape("real_to_binary_net", input_shape)
    stem = nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3, bias=False)
    layers = [HalfTurn(), BinaryBlock(stem, _norm(64)), nn.PReLU(64), MaxPool2d(3, stride=2, padding=1)]
    inputs = 64
    for width in (64, 128, 256, 512):
        for stride in (1 if width == 64 else 2, 1, 1, 1):
            layers.append(RealToBinaryUnit(inputs, width, stride=stride))
            inputs = width
    return nn.Sequential(*layers, *classifier(inputs, classes))


class RealToBinaryUnit(nn.Module):
    """Norm, a binary 3x3 convolution whose channels are scaled by a gate of the norm's mean, and PReLU; plus its input.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        stride: of the convolution, 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm = _norm(inputs)
        hidden = inputs // _REDUCTION
        self.gate = nn.Sequential(
            GlobalAvgPool2d(),
            nn.Flatten(),
            nn.Linear(inputs, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, outputs, bias=False),
            nn.Sigmoid(),
        )
        self.conv = sign_conv(inputs, outputs, window=1.0, stride=stride)
        self.activation = nn.PReLU(outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(AvgPool2d(stride), BinaryBlock(conv, _norm(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        real = self.norm(x)
        gate = self.gate(real)
        out: Tensor = self.activation(self.conv(real) * gate[:, :, None, None])
        return out + (x if self.shortcut is None else self.shortcut(x))
