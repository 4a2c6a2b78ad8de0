"""Some steps of training by several ranks, or by one; run by each of them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bnn.distributed import exchange_of, join, leave
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d
from bnn.models import initialize, mlp, resnet8
from bnn.models.resnet_imagenet import ResidualUnit
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.presets import edge, prepare
from bnn.quantizers import ApproxSign, Sign, Ternary
from bnn.training import TrainingStep
from bnn.weights import DiscreteStore, StoreFactory
from hwsim.store import DeviceStore

SHAPE, CLASSES = (2, 8, 8), 5


def network() -> nn.Module:
    """Blocks of every kind that keeps bits: a real input, a pooling, an odd number of channels, a real weight."""
    return nn.Sequential(
        BinaryBlock(BinaryConv2d(2, 11, 3, padding=1, input_quantizer=None), nn.BatchNorm2d(11), activation=Sign()),
        BinaryBlock(
            BinaryConv2d(11, 16, 3, padding=1), nn.BatchNorm2d(16), pool=MaxPool2d(2), activation=nn.Hardtanh()
        ),
        BinaryBlock(
            BinaryConv2d(16, 13, 3, padding=1, input_quantizer=ApproxSign(), learned_scale=True),
            nn.BatchNorm2d(13),
            activation=nn.Hardtanh(),
        ),
        BinaryBlock(nn.Conv2d(13, 9, 3, bias=False), nn.BatchNorm2d(9), activation=Sign()),
        nn.Flatten(),
        BinaryBlock(BinaryLinear(36, 20), nn.BatchNorm1d(20), activation=Sign()),
        BinaryBlock(BinaryLinear(20, CLASSES), nn.BatchNorm1d(CLASSES)),
    )


def residual_imagenet() -> nn.Module:
    """The beginning and the end of ResNetE-18, with a unit that halves the image in between."""
    options = {"store": None, "input_quantizer": Sign()}
    return nn.Sequential(
        nn.BatchNorm2d(2),
        BinaryBlock(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), activation=nn.ReLU()),
        nn.BatchNorm2d(8),
        ResidualUnit(8, 8, stride=1, **options),
        ResidualUnit(8, 16, stride=2, **options),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def groups() -> nn.Module:
    """Convolutions of groups, and fewer outputs than some ranks have shares of."""
    return nn.Sequential(
        BinaryBlock(BinaryConv2d(2, 12, 3, padding=1, input_quantizer=None), nn.BatchNorm2d(12), activation=Sign()),
        BinaryBlock(BinaryConv2d(12, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16), activation=Sign()),
        BinaryBlock(BinaryConv2d(16, 3, 3), nn.BatchNorm2d(3), pool=MaxPool2d(2), activation=Sign()),
        nn.Flatten(),
        BinaryBlock(BinaryLinear(27, CLASSES), nn.BatchNorm1d(CLASSES)),
    )


NETWORKS = {
    "groups": groups,
    "network": network,
    "mlp": lambda: mlp(input_shape=SHAPE, classes=CLASSES, hidden=(24,)),
    "residual": lambda: resnet8(input_shape=SHAPE, classes=CLASSES, width=8),
    "resnete": residual_imagenet,
}


def ternary_step(store: StoreFactory) -> TrainingStep:
    """GXNOR-Net's way of training, with a small network."""
    model = nn.Sequential(
        nn.Flatten(),
        BinaryBlock(BinaryLinear(128, 24, store=store, input_quantizer=None), nn.BatchNorm1d(24)),
        BinaryBlock(BinaryLinear(24, CLASSES, store=store, input_quantizer=Ternary()), nn.BatchNorm1d(CLASSES)),
    )
    initialize(model, generator=torch.Generator().manual_seed(0))
    return TrainingStep(model=model, optimizer=DST(Adam(model.parameters(), lr=1e-2, seed=0)))


def step_of(way: str, name: str) -> TrainingStep:
    """The step of a preset and a network, or of discrete weights; `signs`: that of `edge` by sign gradients."""
    if way == "signs":
        return edge(NETWORKS[name], SHAPE, sign_gradients=True)
    if way in ("gxnor", "junctions"):
        return ternary_step(DiscreteStore if way == "gxnor" else DeviceStore)
    return prepare(way, NETWORKS[name], input_shape=SHAPE)


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random batches of 24."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(24, *SHAPE, generator=generator)
        yield x, torch.randint(CLASSES, (24,), generator=generator)


def trained(mode: str, way: str, name: str, slice_size: str, steps: str) -> dict[str, Tensor]:
    """All tensors of the training, and the losses, after some steps."""
    ranks = join(patience_s=30)
    step = step_of(way, name)
    step.exchange = exchange_of(mode, ranks)
    step.slice_size = int(slice_size) or None
    step.model.train()
    torch.manual_seed(ranks.rank)  # what a rank draws from torch's own generator must not matter
    losses = []
    for x, labels in batches(int(steps)):
        rows = step.exchange.rows(len(x), step.slice_count(len(x)))
        result = step.take(x[rows], labels[rows])
        losses += [result.loss, result.correct]
    found = {f"model {name}": tensor.detach() for name, tensor in step.model.state_dict().items()}
    for index, tensor in enumerate(step.states()):
        found[f"state {index}"] = tensor
    return {**found, "losses": torch.tensor(losses, dtype=torch.float64)}


def many(*cases: str) -> dict[str, Tensor]:
    """`trained` of some cases, each its arguments joined by spaces."""
    found = {}
    for case in cases:
        found |= {f"{case}: {name}": tensor for name, tensor in trained(*case.split()).items()}
    leave()
    return found
