"""A network's description gives the same network again, and one that lies does no harm."""

import copy
import json
import random
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import bnn.layers
import bnn.quantizers
from bnn.codec import network as descriptions
from bnn.codec.errors import CodecError, FormatError
from bnn.codec.network import NotDescribableError, build, describe
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm, L1BatchNorm, MaxPool2d, RPReLU
from bnn.models import (
    binarynet,
    cnv,
    gxnor_cnn,
    gxnor_vgg,
    mlp,
    resnet8,
    resnet18,
    resnet20,
    resnete18,
    vgg7,
    vgg_small,
)
from bnn.models.zoo import RELEASED
from bnn.quantizers import ApproxSign, BoundedSign, DoReFa, ReCU, Sign, TanhSign, Ternary
from bnn.quantizers.gradients import Int8Gradient, IntegerGradient
from bnn.weights import FrozenStore

# Of every listed class a module whose arguments differ from the defaults.
SAMPLES = [
    nn.Sequential(nn.Identity(), nn.ModuleList([nn.Flatten(2), nn.Unflatten(1, (2, 3))])),
    *(nn.Linear(3, 4, bias=bias) for bias in (True, False)),
    nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2),
    nn.Conv2d(2, 4, (3, 1), padding="same", bias=False, padding_mode="reflect"),
    nn.Conv3d(1, 2, 3, dilation=2),
    nn.BatchNorm1d(3, eps=1e-3, momentum=None),
    nn.BatchNorm2d(3, affine=False),
    nn.BatchNorm3d(3, track_running_stats=False),
    nn.GroupNorm(2, 4, affine=False),
    nn.LayerNorm((3, 4), eps=1e-3, bias=False),
    nn.InstanceNorm1d(3),
    nn.InstanceNorm2d(3, affine=True),
    nn.MaxPool1d(2, ceil_mode=True),
    nn.MaxPool2d((3, 2), stride=1, padding=1),
    nn.AvgPool1d(2),
    nn.AvgPool2d(2, count_include_pad=False),
    nn.AdaptiveAvgPool1d(1),
    nn.AdaptiveAvgPool2d((None, 2)),
    nn.AdaptiveMaxPool1d(1),
    nn.AdaptiveMaxPool2d(2),
    nn.ZeroPad2d((1, 0, 2, 0)),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.PixelShuffle(2),
    nn.Dropout(0.25),
    nn.Dropout1d(0.25),
    nn.Dropout2d(0.25),
    nn.AlphaDropout(0.25),
    *(getattr(nn, name)() for name in ("ReLU", "ReLU6", "ELU", "SELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid")),
    *(getattr(nn, name)() for name in ("Sigmoid", "Tanh", "Softplus")),
    nn.GELU(approximate="tanh"),
    nn.LeakyReLU(0.3, inplace=True),
    nn.PReLU(3),
    nn.Hardtanh(-2, 3),
    nn.Softmax(dim=1),
    nn.LogSoftmax(dim=-1),
    BinaryLinear(3, 4, learned_scale=True, bias=True, input_quantizer=None),
    BinaryConv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, input_quantizer=Sign(window=float("inf"))),
    BinaryConv2d(
        4, 6, 3, input_quantizer=ReCU(tau=0.9, tail="pass"), grad_quantizer=IntegerGradient(4, generator=None)
    ),
    BinaryConv2d(4, 6, 3, input_quantizer=Ternary(threshold=0.2, surrogate="triangular", window=0.3)),
    BinaryBlock(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), pool=MaxPool2d(3, stride=2, padding=1), activation=nn.Hardtanh()
    ),
    BinaryBlock(
        BinaryLinear(3, 4, input_quantizer=ApproxSign(normalize=True), grad_quantizer=Int8Gradient(quantile=0.9)),
        L1BatchNorm(4, eps=1e-3, momentum=0.2, affine=False),
        recompute=True,
    ),
    BinaryNorm(4, eps=1e-3),
    BinaryBlock(
        BinaryLinear(3, 4, input_quantizer=TanhSign(fan_in=3.0)),
        bnn.layers.RangeBatchNorm(4, chunks=2, constant="paper", affine=False),
        activation=BoundedSign(norm=2.0),
    ),
    bnn.layers.TopKBatchNorm(4, k=3, momentum=0.2),
    bnn.layers.HadamardClassifier(8, 5),
    RPReLU(5),
    bnn.layers.AvgPool2d(2, ceil_mode=True),
    bnn.layers.GlobalAvgPool2d(),
    bnn.layers.HalfTurn(),
    bnn.layers.BlurPool2d(5),
    BinaryBlock(
        BinaryLinear(3, 4, input_quantizer=DoReFa(bits=3)),
        bnn.layers.OffsetBatchNorm(4, eps=1e-3, momentum=0.2),
        rectifies=True,
    ),
    bnn.layers.Graph(
        {"a.0": nn.Linear(3, 4), "class": nn.ReLU()},
        [
            ("%y", "part", "a.0", ("%x",)),
            ("%z", "method", "reshape", ("%y", (-1, 2)), ()),
            ("%s", "function", "slice", (0, None, 2), ()),
            ("%p", "function", "operator.getitem", ("%z", (0, "%s")), ()),
            ("%r", "function", "torch.cat", (("%p", "%p"),), (("dim", 0),)),
            ("%q", "part", "class", ("%r",), ()),
        ],
        "%q",
        frozen=1,
    ),
]
MODELS = [binarynet, cnv, gxnor_cnn, gxnor_vgg, mlp, resnet8, resnet18, resnet20, vgg7, vgg_small]
MODELS += [partial(resnete18, classes=3)]
# Each class of the zoo's units.
MODELS += [
    RELEASED[name].build for name in ("quicknet_small", "birealnet", "dorefanet", "meliusnet22", "real_to_binary_net")
]


def plain(module: nn.Module) -> str:
    """The module without its stores, which are not told."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if hasattr(part, "store"):
            part.store = FrozenStore(torch.empty(part.store.shape, device="meta"), levels=2)
    return "\n".join(line for line in repr(module).splitlines() if not line.endswith(": None"))


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items() if "store" not in name}


@pytest.mark.parametrize("module", SAMPLES, ids=lambda module: type(module).__name__)
def test_a_module_comes_back_with_its_arguments(module):
    description = json.loads(json.dumps(describe(module), allow_nan=False))
    again = build(description)
    assert plain(again) == plain(module)
    assert shapes(again) == shapes(module)
    assert describe(again) == description


@pytest.mark.parametrize("make", MODELS)
def test_the_networks_of_the_package_come_back(make):
    with torch.device("meta"):
        model = make()
        again = build(json.loads(json.dumps(describe(model))))
    assert plain(again) == plain(model)
    assert shapes(again) == shapes(model)


def test_every_listed_class_has_a_sample():
    found = {type(part) for sample in SAMPLES for part in sample.modules()}
    listed = set(descriptions._KNOWN.values())
    gradients = {cls for name, cls in descriptions._KNOWN.items() if "gradients" in name}
    assert listed - gradients - {bnn.quantizers.ScaledSign} <= found


class Unit(nn.Module):
    """A module of a user's own."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.inner, self.other, self.sizes = nn.Linear(2, 3), None, (1, 2)
        for name, value in attributes.items():
            setattr(self, name, value)


def test_a_module_of_one_s_own_is_told_by_its_attributes_and_parts_and_built_where_it_is_given():
    description = describe(nn.Sequential(Unit(kind="x", rate=float("inf"))))
    with pytest.raises(FormatError, match=r"does not know, 'Unit': give the class, as in .*classes="):
        build(description)
    (unit,) = build(description, {"Unit": Unit})
    assert (unit.kind, unit.rate, unit.sizes, unit.other) == ("x", float("inf"), (1, 2), None)
    assert isinstance(unit.inner, nn.Linear)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scale": nn.Parameter(torch.ones(1))}, "its part 0 .Unit. has a tensor of its own, scale"),
        ({"made": torch.Generator()}, "its part 0 .Unit. keeps made, a Generator"),
        ({"table": {"a": 1}}, "its part 0 .Unit. keeps table, a dict"),
        ({"sizes": [1, len]}, "its part 0 .Unit. keeps sizes, a builtin"),
    ],
)
def test_what_cannot_be_told_says_why(attributes, message):
    with pytest.raises(NotDescribableError, match=message):
        describe(nn.Sequential(Unit(**attributes)))


LINEAR = {"class": "torch.nn.Linear", "arguments": {"in_features": 2, "out_features": 3}}
BLOCK = "bnn.models.resnet_cifar._Block"


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        "torch.nn.Linear",
        {},
        {"class": 5},
        {"class": ["torch.nn.Linear"]},
        {"class": "os.system", "arguments": {"command": "true"}},
        {"class": "torch.nn.DataParallel", "arguments": {}},
        {"class": "torch.nn.Linear"},
        {"class": "torch.nn.Linear", "arguments": []},
        {"class": "torch.nn.Linear", "arguments": {"in_features": 2}},
        {"class": "torch.nn.Linear", "arguments": {"in_features": -2, "out_features": 3}},
        {"class": "torch.nn.Linear", "arguments": {"in_features": "x", "out_features": 3}},
        {"class": "torch.nn.Linear", "arguments": {**LINEAR["arguments"], "device": "cuda"}},
        {"class": "torch.nn.Linear", "arguments": {**LINEAR["arguments"], "weight": 1}},
        {"class": "torch.nn.Linear", "arguments": {"in_features": {"x": 1}, "out_features": 3}},
        {"class": "torch.nn.Linear", "arguments": {"in_features": {"float": []}, "out_features": 3}},
        {"class": "bnn.layers.BinaryLinear", "arguments": {**LINEAR["arguments"], "store": LINEAR}},
        {"class": "bnn.layers.BinaryBlock", "arguments": {"product": LINEAR, "norm": 5, "pool": LINEAR}},
        {"class": "bnn.layers.BinaryBlock", "arguments": {"product": {"class": "torch.nn.Flatten", "arguments": {}}}},
        *(
            {
                "class": "bnn.layers.Graph",
                "arguments": {"parts": {"parts": {"a": LINEAR}}, "calls": calls, "output": "%y"},
            }
            for calls in (
                [["%y", "part", "b", ["%x"]]],
                [["%y", "function", "os.system", ["true"]]],
                [["%y", "method", "__reduce__", ["%x"]]],
                [["%y", "part", "a", ["%z"]]],
                [["%x", "part", "a", ["%x"]]],
                [["%z", "part", "a", ["%x"]]],
                [["y"]],
                5,
            )
        ),
        {
            "class": "bnn.layers.Graph",
            "arguments": {"parts": {"parts": {"train": LINEAR}}, "calls": [], "output": "%x"},
        },
        {**LINEAR, "arguments": {"in_features": 10**30, "out_features": 3}},
        {"class": "torch.nn.Sequential", "parts": {"a.b": LINEAR}},
        {"class": "torch.nn.Sequential", "parts": {"forward": LINEAR}},
        {"class": "torch.nn.Sequential", "parts": [LINEAR]},
        {"class": "torch.nn.Sequential", "parts": {"0": 1}},
        {"class": BLOCK},
        {"class": BLOCK, "attributes": {"forward": 1}, "parts": {}},
        {"class": BLOCK, "attributes": {"_forward_hooks": 1}, "parts": {}},
        {"class": BLOCK, "attributes": {"training": "x"}, "parts": {}},
        {"class": BLOCK, "attributes": {"__class__": "x"}, "parts": {}},
        {"class": BLOCK, "attributes": {"__dict__": []}, "parts": {}},
    ],
)
def test_a_description_that_lies_is_refused_in_one_line(description):
    with pytest.raises(FormatError) as caught:
        build(description)
    assert "\n" not in str(caught.value)


def test_descriptions_are_not_followed_without_end():
    description: dict[str, Any] = LINEAR
    for _ in range(100):
        description = {"class": "torch.nn.Sequential", "parts": {"0": description}}
    with pytest.raises(FormatError, match="up to 64 deep"):
        build(description)


VALUES = [None, True, -1, 0, 3, 1 << 40, 0.5, "x", [], [1, 2], {}, {"float": "nan"}, LINEAR, {"class": BLOCK}]


def changed(value: Any, chance: random.Random) -> Any:
    """A description in which one value is another, or one name."""
    if isinstance(value, dict) and value and chance.random() < 0.95:
        key = chance.choice(list(value))
        return {**value, key: changed(value[key], chance)}
    return chance.choice(VALUES)


def test_five_hundred_changed_descriptions_are_built_or_refused():
    chance, outcomes = random.Random(0), set()
    with torch.device("meta"):
        whole = describe(resnet8())
        for _ in range(500):
            try:
                build(changed(whole, chance))
                outcomes.add("built")
            except CodecError:
                outcomes.add("refused")
    assert outcomes == {"built", "refused"}
