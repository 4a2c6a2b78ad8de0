"""Networks whose first layers are not trained any more."""

import pytest
import torch
from torch import nn

from bnn.codec.network import build, describe
from bnn.errors import RecipeError
from bnn.layers import Graph
from bnn.layers.graph import INPUT
from bnn.models import cnv, initialize, resnet8
from bnn.models.freezing import freeze, places_to_freeze
from bnn.presets import prepare
from bnn.weights import FrozenStore, is_accumulator, named_stores
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


@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
def test_what_is_frozen_keeps_nothing_for_backward_and_computes_as_in_evaluation(preset):
    x, step = torch.randn(8, *SHAPE), frozen_step(preset)
    step.model.train()
    with saved_bytes() as saved:
        values = step.model.run({INPUT: x}, 0, step.model.frozen)
    assert not saved
    (name,) = step.model.handed_on
    evaluated = step.model.eval().run({INPUT: x}, 0, step.model.frozen)
    assert torch.equal(values[name], evaluated[name])
    trained = {id(parameter) for group in step.optimizer.param_groups for parameter in group["params"]}
    frozen = [step.model.get_submodule(call.target) for call in step.model.calls[: step.model.frozen]]
    assert not [p for part in frozen for p in part.parameters() if id(p) in trained or is_accumulator(p)]


@pytest.mark.parametrize(("make", "upto"), [(resnet8, "0"), (resnet8, "2"), (cnv, "5")])
def test_what_goes_on_is_bits_and_may_be_replayed(make, upto):
    shape = (3, 32, 32)
    model = make(input_shape=shape, classes=3)
    initialize(model, generator=torch.Generator().manual_seed(0))
    graph = freeze(model, upto, input_shape=shape, hands_on_bits=True)
    x = torch.randn(4, *shape)
    assert torch.equal(graph(x[:1], graph.frozen_part(x).packed[1:]), graph(x))
    again = build(describe(graph))
    assert again.eval().frozen_part(x).packed.shape == graph.frozen_part(x).packed.shape


def test_where_the_first_layers_can_be_frozen():
    assert places_to_freeze(network(), input_shape=SHAPE) == ["0", "1", "2", "5", "6"]
    assert places_to_freeze(cnv(input_shape=(3, 32, 32)), input_shape=(3, 32, 32))[:4] == ["0", "2", "3", "5"]


def test_frozen_weights_are_not_copied_in_a_step():
    step, copied = frozen_step("edge-min"), []
    for call in step.model.calls[: step.model.frozen]:
        for buffer in step.model.get_submodule(call.target).buffers():
            buffer.clone = lambda own=buffer: copied.append(own)
    step.model.train()
    step.take(torch.randn(4, *SHAPE), torch.arange(4) % 3)
    assert not copied


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
