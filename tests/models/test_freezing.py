"""Networks whose first layers are not trained any more."""

import pytest
import torch
from torch import nn

from bnn.codec.network import build, describe
from bnn.errors import RecipeError
from bnn.layers import Graph
from bnn.models import initialize, resnet8
from bnn.models.freezing import freeze
from bnn.presets import prepare
from bnn.weights import FrozenStore, named_stores
from tests.contracts import saved_bytes

SHAPE = (3, 16, 16)


def network() -> nn.Sequential:
    model = resnet8(input_shape=SHAPE, classes=3)
    initialize(model, generator=torch.Generator().manual_seed(0))
    return model


def frozen_step(preset: str, upto: str = "2"):
    return prepare(preset, lambda: freeze(network(), upto, input_shape=SHAPE), input_shape=SHAPE, keep_weights=True)


def test_it_computes_the_same_and_has_the_same_names():
    model = network().eval()
    x = torch.randn(2, *SHAPE)
    before, names = model(x), set(model.state_dict())
    graph = freeze(model, "2", input_shape=SHAPE).eval()
    assert isinstance(graph, Graph)
    assert torch.equal(graph(x), before)
    assert {name.replace("elements", "weight") for name in graph.state_dict()} == names
    assert [isinstance(store, FrozenStore) for _, store in named_stores(graph)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
def test_what_is_frozen_does_not_change_and_the_rest_learns(preset):
    step = frozen_step(preset)
    assert not [p for group in step.optimizer.param_groups for p in group["params"] if p.numel() == 16 * 3 * 9]
    before = {name: x.clone() for name, x in step.model.state_dict().items()}
    x, labels = torch.randn(8, *SHAPE), torch.arange(8) % 3
    step.model.train()
    losses = [step.take(x, labels).loss for _ in range(8)]
    assert losses[-1] < losses[0]
    changed = {name.split(".")[0] for name, y in step.model.state_dict().items() if not torch.equal(y, before[name])}
    assert changed == {"3", "6", "7"}


def test_what_is_frozen_keeps_nothing_for_backward():
    x, kept = torch.randn(8, *SHAPE), []
    for step in (frozen_step("edge-min"), prepare("edge-min", network, input_shape=SHAPE)):
        step.model.train()
        with saved_bytes() as saved:
            step.model(x)
        kept.append(sum(saved.values()))
    assert kept[0] < kept[1] / 3


def test_it_is_described_with_what_is_frozen():
    graph = freeze(network(), "1", input_shape=SHAPE)
    again = build(describe(graph))
    assert again.frozen == graph.frozen == 2


def test_a_count_or_a_module_s_name_says_how_far():
    assert freeze(network(), "3", input_shape=SHAPE).frozen == 4, "the name of a module goes before a count"


@pytest.mark.parametrize(
    ("upto", "message"),
    [
        ("7", "nothing is left to train where all up to 7 is frozen"),
        ("seven", "there is no layer 'seven' to freeze up to; there are 6: 0, 1, 2, 3, 6, 7"),
    ],
)
def test_what_cannot_be_frozen_is_one_line(upto, message):
    with pytest.raises(RecipeError, match=message):
        freeze(network(), upto, input_shape=SHAPE)
