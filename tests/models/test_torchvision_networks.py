"""torchvision's classifiers become binary by their names."""

import pytest
import torch
from torch import nn

from bnn.data.torchvision_import import import_torchvision
from bnn.errors import DataError, RecipeError
from bnn.layers import BinaryBlock
from bnn.models import torchvision_networks
from bnn.models.torchvision_networks import torchvision_network
from bnn.presets import prepare

try:
    import_torchvision("models", needed_by="this test")
except DataError as missing:
    pytest.skip(str(missing), allow_module_level=True)

SHAPE = (3, 32, 32)
# Binary layers, and real ones: first, last, shortcuts, depthwise.
COUNTS = {"resnet18": (16, 5), "mobilenet_v2": (34, 19), "vgg11": (9, 2)}


@pytest.mark.parametrize("name", COUNTS)
def test_a_network_is_made_of_blocks(name):
    with torch.device("meta"):
        network, report = torchvision_network(name, input_shape=SHAPE, classes=7)
        assert network(torch.empty(2, *SHAPE)).shape == (2, 7)
    assert (len(report.named("binary")), len(report.named("real"))) == COUNTS[name]
    blocks = [part for part in network.parts.values() if isinstance(part, BinaryBlock)]
    assert len(blocks) == sum(COUNTS[name]) - 1, "all but the classifier"
    assert not [call for call in network.calls if call.target == "operator.add"]


def test_residual_units_hand_their_input_on_and_shortcuts_are_real():
    with torch.device("meta"):
        network, report = torchvision_network("resnet18", input_shape=SHAPE)
    shared = [call.target for call in network.calls if ("with_input", True) in call.options]
    assert shared == [f"layer{stage}.{unit}.conv1" for stage in (1, 2, 3, 4) for unit in (0, 1)]
    assert [str(report[f"layer{stage}.0.downsample.0"]).split(", one")[0] for stage in (2, 3, 4)] == [
        f"layer{stage}.0.downsample.0: real, a shortcut" for stage in (2, 3, 4)
    ]
    assert isinstance(network.parts["conv1"].activation, nn.ReLU), "a norm stands between it and the next sign"


def test_it_trains_and_takes_other_colours():
    shape = (1, 32, 32)
    step = prepare(
        "edge-min",
        lambda: torchvision_network("resnet18", input_shape=shape, classes=3).network,
        input_shape=shape,
    )
    x, labels = torch.randn(6, *shape), torch.arange(6) % 3
    first = step.take(x, labels).loss
    losses = [step.take(x, labels).loss for _ in range(6)]  # the first of a small batch go up
    assert min(losses) < first / 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "torchvision has no classifier 'resnet19', but there is 'resnet18'"),
        ("vit_b_16", "torchvision:vit_b_16: its calls cannot be listed "),
    ],
)
def test_what_is_refused(name, message):
    with pytest.raises(RecipeError, match=message) as caught:
        torchvision_network(name, classes=3)
    assert "\n" not in str(caught.value)


def test_a_missing_torchvision_is_one_line(monkeypatch):
    def missing(part, *, needed_by):
        raise DataError(f"{needed_by} needs torchvision, which is not installed")

    monkeypatch.setattr(torchvision_networks, "import_torchvision", missing)
    with pytest.raises(DataError, match="the network torchvision:resnet18 needs torchvision, which is not installed"):
        torchvision_network("resnet18")
