"""Channels followed through networks, and networks without some of them."""

import copy

import pytest
import torch
from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d
from bnn.models import cnv, mlp, resnet8, vgg_small
from bnn.posttraining.channels import channels_of, without
from bnn.posttraining.products import products_of_network
from bnn.posttraining.series import graph_of

SHAPE = (3, 32, 32)


def silenced(graph, found, removed):
    """The same network with zeros in place of what is removed, for every product that takes it."""
    made = copy.deepcopy(graph)
    for name, labels in found.inputs.items():
        gone = torch.tensor([label in removed for label in found.roots(labels).tolist()])

        def hook(module, inputs, gone=gone):
            x = inputs[0].dense() if hasattr(inputs[0], "dense") else inputs[0]
            quantized = module.quantized(x) if hasattr(module, "quantized") else x
            quantized = quantized.dense() if hasattr(quantized, "dense") else quantized
            module.input_quantizer = None
            return (quantized * ~gone.view(-1, *[1] * (x.dim() - 2)),)

        made.get_submodule(name).register_forward_pre_hook(hook)
    return made


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: mlp(hidden=(12, 16)), (1, 28, 28)),
        pytest.param(vgg_small, SHAPE, marks=pytest.mark.slow),
        pytest.param(cnv, SHAPE, marks=pytest.mark.slow),
        (lambda: resnet8(width=8), SHAPE),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1350, 4)),
            SHAPE,
        ),
    ],
    ids=["mlp", "vgg_small", "cnv", "resnet8", "prelu"],
)
def test_a_smaller_network_gives_what_the_whole_one_gives_without_the_channels(build, shape):
    torch.manual_seed(0)
    graph = graph_of(build().eval(), shape).eval()
    found = channels_of(graph, shape)
    labels = sorted(found.removable())
    removed = set(labels[::3])
    small = without(graph, found, removed, copy.deepcopy)
    x = torch.randn(2, *shape)
    torch.testing.assert_close(small(x), silenced(graph, found, removed)(x), rtol=1e-4, atol=1e-4)
    weights = [sum(p.numel() for p in one.parameters()) for one in (graph, small)]
    assert weights[1] < 0.75 * weights[0]
    assert sorted(channels_of(small, shape).removable()) != labels


def test_shortcuts_and_padding_join_channels():
    shape = SHAPE
    graph = graph_of(resnet8(width=8).eval(), shape).eval()
    found = channels_of(graph, shape)
    members = list(found.removable().values())
    assert len(members) == 32  # those of the last stage; all others come to it by shortcuts
    first = next(names for names in members if ("0.product", 0) in names)
    assert {name for name, _ in first} == {f"{k}.product" for k in ("0",)} | {
        f"{k}.{part}.product" for k in (1, 2, 3) for part in ("first", "second")
    }
    assert ("2.first.product", 4) in first  # behind four channels of zeros


def test_what_mixes_channels_keeps_them():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.two(self.one(x).softmax(1))

    graph = graph_of(Mixing().eval(), (4,)).eval()
    assert channels_of(graph, (4,)).removable() == {}


def test_depthwise_convolutions_follow_their_inputs():
    layers = (nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 2))
    graph = graph_of(nn.Sequential(*layers).eval(), (3, 5, 5)).eval()
    found = channels_of(graph, (3, 5, 5))
    small = without(graph, found, set(list(found.removable())[:2]), copy.deepcopy)
    assert {name: tuple(layer.weight.shape) for name, layer in products_of_network(small).items()} == {
        "0": (4, 3, 1, 1),
        "1": (4, 1, 3, 3),
        "4": (2, 36),
    }
    assert small(torch.randn(1, 3, 5, 5)).shape == (1, 2)


def test_a_layer_keeps_a_channel():
    layers = (BinaryBlock(BinaryConv2d(3, 2, 3), nn.BatchNorm2d(2)), nn.Flatten(), nn.Linear(18, 2))
    graph = graph_of(nn.Sequential(*layers).eval(), (3, 5, 5)).eval()
    found = channels_of(graph, (3, 5, 5))
    with pytest.raises(ValueError, match=r"no channel of 0\.\w+ would be left"):
        without(graph, found, set(found.removable()), copy.deepcopy)
