"""Any network becomes a binary one, and says what became of each layer."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnn
from bnn.codec.network import build, describe
from bnn.errors import RecipeError
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, Graph
from bnn.presets import prepare
from bnn.quantizers import Sign
from bnn.weights import LatentStore, default_store

SHAPE = (3, 16, 16)


class Unit(nn.Module):
    """A residual unit, with a projection where it changes the width."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.project = nn.Sequential() if inputs == channels else nn.Conv2d(inputs, channels, 1, bias=False)
        self.project_bn = nn.Sequential() if inputs == channels else nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.project_bn(self.project(x))
        return F.relu(out)


class Own(nn.Module):
    """A residual network as users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.units = nn.Sequential(Unit(8, 8), Unit(8, 16))
        self.hidden = nn.Linear(16 * 64, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = self.units(x)
        x = x.view(x.size(0), -1)
        x = F.dropout(F.relu(self.hidden(x)), training=self.training)
        return self.head(x)


def chain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=2, stride=2, dilation=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16 * 4, 32),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(32, 4),
    )


def test_a_network_of_one_s_own_becomes_blocks_that_keep_bits():
    network, report = bnn.binarize(Own(), input_shape=SHAPE)
    assert isinstance(network, Graph)
    blocks = {name: part for name, part in network.parts.items() if isinstance(part, BinaryBlock)}
    assert list(blocks) == [
        *("stem", "units.0.conv1", "units.0.conv2", "units.1.conv1", "units.1.project", "units.1.conv2", "hidden")
    ]
    binary = report.named("binary")
    assert binary == [f"units.{unit}.{conv}" for unit in (0, 1) for conv in ("conv1", "conv2")] + ["hidden"]
    assert all(isinstance(blocks[name].product, BinaryConv2d | BinaryLinear) for name in binary)
    # One node a unit's half, the sum included: only poolings, the view and the head are outside.
    assert [call.kind for call in network.calls if call.target not in blocks].count("part") == 4
    assert not [call for call in network.calls if call.target == "operator.add"]
    assert isinstance(blocks["units.1.conv2"].activation, nn.Hardtanh)


def test_each_layer_has_a_line_that_says_what_and_why():
    lines = {change.name: str(change) for change in bnn.binarize(Own(), input_shape=SHAPE).report}
    assert lines["stem"].startswith("stem: real, the first layer")
    assert lines["head"] == "head: real, the last layer"
    assert lines["units.1.project"] == "units.1.project: real, a shortcut, one block with units.1.project_bn"
    assert "bn2 and the sum and Hardtanh in place of the ReLU" in lines["units.0.conv2"]
    assert "without its bias" in lines["units.0.conv2"]
    assert "a new batch norm" in lines["hidden"]
    assert "dropout" not in lines, "in front of the real head it stays"
    assert any("with a new batch norm, since most signs" in line for line in lines.values())


def test_options_say_what_is_binary():
    options = {"binary_first": True, "binary_last": True, "binary_shortcuts": True}
    report = bnn.binarize(Own(), input_shape=SHAPE, **options).report
    assert not report.named("real")
    report = bnn.binarize(Own(), input_shape=SHAPE, keep=["units.0", "*.conv1"]).report
    assert report.named("binary") == ["units.1.conv2", "hidden"]
    assert str(report["units.1.conv1"]).startswith("units.1.conv1: real, kept")


@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
@pytest.mark.parametrize("make", [Own, chain])
def test_presets_train_it_without_floats_between_its_layers(make, preset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a preset warns of what keeps floats
        step = prepare(preset, lambda: bnn.binarize(make(), input_shape=SHAPE).network, input_shape=SHAPE)
    x, labels = torch.randn(8, *SHAPE), torch.arange(8) % 4
    step.model.train()
    losses = [step.take(x, labels).loss for _ in range(8)]
    assert min(losses[-3:]) < losses[0]


def test_a_chain_has_norms_pools_early_and_drops_nothing_before_a_sign():
    network, report = bnn.binarize(chain(), input_shape=SHAPE)
    block = network.parts["2"]
    assert block.pool.kernel_size == 2
    assert isinstance(block.norm, nn.BatchNorm2d)
    assert (block.product.groups, block.product.dilation, block.product.bias) == (2, 2, None)
    assert str(report["6"]) == "6: removed, the sign of what it drops would be +1"
    assert isinstance(network.parts["9"], nn.Dropout)
    assert isinstance(network.parts["7"].activation, nn.ReLU), "the real head takes it"


def test_the_weights_are_the_signs_of_those_that_were_trained():
    model = Own()
    network, _ = bnn.binarize(model, input_shape=SHAPE)
    store = network.parts["units.1.conv2"].product.store
    assert torch.equal(store.weight, model.units[1].conv2.weight)
    assert network.parts["stem"].product.weight.data_ptr() != model.stem.weight.data_ptr()
    for preset in ("edge", "edge-min"):
        make = lambda: bnn.binarize(model, input_shape=SHAPE).network  # noqa: E731
        step = prepare(preset, make, input_shape=SHAPE, keep_weights=True)
        kept = step.model.parts["units.1.conv2"].product.store.read().dense()
        agree = (kept == model.units[1].conv2.weight.sign()).float().mean()
        assert agree == 1 if preset == "edge" else agree > 0.99  # int8 has no code for 0
        assert torch.equal(step.model.parts["head"].weight, model.head.weight)


def test_a_bias_in_front_of_a_norm_goes_into_the_norm():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    model.append(nn.Linear(4 * 144, 2))
    model[1].running_mean.normal_()
    x = torch.randn(2, *SHAPE)
    network, _ = bnn.binarize(model.eval(), input_shape=SHAPE)
    block = network.eval().parts["0"]
    assert block.product.bias is None
    assert torch.allclose(block.norm(block.product(x)), model[1](model[0](x)), atol=1e-5)


def test_stores_and_quantizers_can_be_chosen():
    network, _ = bnn.binarize(chain(), input_shape=SHAPE, input_quantizer=Sign(window=2.0))
    assert network.parts["2"].product.input_quantizer.window == 2.0
    made = []

    def store(shape):
        made.append(tuple(shape))
        return LatentStore(shape)

    bnn.binarize(chain(), input_shape=SHAPE, store=store)
    with default_store(store):
        bnn.binarize(chain(), input_shape=SHAPE)
    assert made == 2 * [(16, 4, 3, 3), (32, 64)]


def test_a_model_without_memory_gives_a_network_with_memory():
    with torch.device("meta"):
        model = Own()
    network, _ = bnn.binarize(model, input_shape=SHAPE)
    assert not [tensor for tensor in network.state_dict().values() if tensor.is_meta]
    assert network.parts["stem"].product.weight.any()
    network(torch.randn(2, *SHAPE))


def test_it_is_described_by_its_parts_so_that_no_class_of_one_s_own_is_needed():
    network, _ = bnn.binarize(Own(), input_shape=SHAPE)
    again = build(describe(network))
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, *SHAPE)
    assert torch.equal(again.eval()(x), network.eval()(x))


class Branching(nn.Module):
    """A network that calls what depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU()
        self.tall, self.last = nn.Conv2d(4, 4, (3, 1)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.second(x) if x.sum() > 0 else -self.second(x)
        return self.last(self.tall(x).mean((2, 3)))


def test_what_cannot_be_traced_is_taken_layer_by_layer():
    network, report = bnn.binarize(Branching(), input_shape=SHAPE)
    assert isinstance(network, Branching)
    assert isinstance(network.second, BinaryConv2d)
    assert isinstance(network.act, nn.Hardtanh)
    lines = str(report).splitlines()
    assert lines[0].startswith("the network: is taken layer by layer, and keeps floats between them, symbolically")
    assert lines[1:] == [
        "first: real, the first layer",
        "second: binary, with a learned scale",
        "tall: real, its kernel of 3x1 is not square",
        "last: real, the last layer",
        "act: changed, Hardtanh in place of the ReLU",
    ]
    assert network(torch.randn(2, *SHAPE)).shape == (2, 2)


def test_layers_that_no_binary_one_stands_for_say_why():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 4, 3, stride=(1, 2)),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    model(torch.zeros(1, *SHAPE))
    report = bnn.binarize(model, input_shape=SHAPE).report
    assert str(report["1"]) == "1: real, its stride of 1x2 is not square"
    assert str(report["2"]).startswith("2: real, its padding is reflect")
    assert str(report["3"]).startswith("3: real, a ConvTranspose2d has no binary counterpart")
    assert str(report["4"]).startswith("4: real, depthwise")
    assert report.named("binary") == ["5"]
    assert report.summary.startswith("1 of 7 layers are binary, real: 0 (the first layer")


def test_bad_input_is_one_line():
    for make, options, message in (
        (Own, {"keep": ["unit.0"]}, "there is no layer 'unit.0' to keep"),
        (Own, {"input_shape": (1, 16, 16)}, r"the network fails on examples of \[1, 16, 16\]"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), {"input_shape": (4,)}, "no layer becomes binary"),
        (lambda: nn.ReLU(), {}, "it has no convolution"),
    ):
        with pytest.raises(RecipeError, match=message) as caught:
            bnn.binarize(make(), **{"input_shape": SHAPE, **options})
        assert "\n" not in str(caught.value)
