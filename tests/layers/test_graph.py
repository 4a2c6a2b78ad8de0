"""A network as a list of calls."""

import copy

import pytest
import torch
from torch import nn

from bnn.layers import Graph


def two_ways(frozen: int = 0) -> Graph:
    """linear(x) + norm(linear(x))."""
    return Graph(
        {"way.linear": nn.Linear(3, 4), "way.norm": nn.BatchNorm1d(4)},
        [
            ("%a", "part", "way.linear", ("%x",)),
            ("%b", "part", "way.norm", ("%a",)),
            ("%c", "function", "operator.add", ("%a", "%b")),
        ],
        "%c",
        frozen=frozen,
    )


def test_calls_are_taken_in_order_by_the_names_of_the_parts():
    graph, x = two_ways(), torch.randn(5, 3)
    linear, norm = graph.parts["way.linear"], graph.parts["way.norm"]
    assert torch.equal(graph(x), linear(x) + norm(linear(x)))
    assert list(graph.state_dict())[:2] == ["way.linear.weight", "way.linear.bias"]


def test_values_are_dropped_after_their_last_use():
    graph = two_ways()
    assert set(graph.run({"%x": torch.randn(2, 3)}, 0)) == {"%c"}


def test_a_copy_is_independent():
    graph = two_ways()
    copied = copy.deepcopy(graph)
    with torch.no_grad():
        copied.parts["way.linear"].weight.zero_()
    assert graph.parts["way.linear"].weight.any()


def test_what_is_frozen_keeps_nothing_and_stays_in_evaluation_mode():
    graph, x = two_ways(frozen=2), torch.randn(5, 3)
    assert graph.training
    assert not graph.parts["way.norm"].training
    before = graph.parts["way.norm"].running_mean.clone()
    assert not graph(x).requires_grad
    assert torch.equal(graph.parts["way.norm"].running_mean, before)
    graph.frozen = 0
    graph.train()
    assert graph(x).requires_grad
    assert not torch.equal(graph.parts["way.norm"].running_mean, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("%y", "part", "b", ("%x",)), "no part 'b'"),
        (("%y", "function", "eval", ("1",)), "no function 'eval'"),
        (("%y", "method", "backward", ("%x",)), "no method 'backward'"),
        (("%y", "magic", "b", ("%x",)), "no magic 'b'"),
        (("%y", "part", "a", (("%x", "%z"),)), "that it cannot"),
        (("y", "part", "a", ("%x",)), "that it cannot"),
    ],
)
def test_only_what_is_listed_can_be_called(call, message):
    with pytest.raises(ValueError, match=message):
        Graph({"a": nn.Identity()}, [call], "%x")


def test_there_is_a_value_to_return_and_no_more_calls_are_frozen_than_there_are():
    with pytest.raises(ValueError, match="no value '%z'"):
        Graph({"a": nn.Identity()}, [], "%z")
    with pytest.raises(ValueError, match="of 3 calls"):
        two_ways(frozen=4)
