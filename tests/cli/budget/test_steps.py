import pytest
import torch

import bnn.optim
from bnn.cli.budget.networks import Network, find_network
from bnn.cli.budget.steps import OPTIMIZERS, PRESETS, Way, check_way, step_on_meta, tiny_step, ways
from bnn.errors import UsageError
from bnn.weights import Accumulator


def step(preset: str, optimizer: str, **options):
    return step_on_meta(find_network("mlp", (1, 4, 4)), Way(preset, optimizer, 10, **options))


def test_ways_are_every_preset_with_every_optimizer_that_it_can_have():
    found = ways(find_network("mlp", None))
    assert found == [*((p, o) for p in ("standard", "edge") for o in OPTIMIZERS), ("edge-min", "adam")]
    assert ways(find_network("gxnor_cnn", None)) == [("standard", optimizer) for optimizer in OPTIMIZERS]


@pytest.mark.parametrize(("preset", "optimizer"), ways(find_network("mlp", None)))
def test_every_parameter_has_one_optimizer_and_state_of_the_preset_s_width(preset, optimizer):
    of = step(preset, optimizer)
    stepped = [id(p) for o in of.optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(stepped) == sorted(id(parameter) for parameter in of.model.parameters())
    assert all(parameter.is_meta for parameter in of.model.parameters())
    low_bit = [o for o in of.optimizers if isinstance(o, bnn.optim.base.LowBitOptimizer)]
    if preset == "edge":
        assert all(o.state_dtype is torch.float16 for o in low_bit)
        assert len(low_bit) == len(of.optimizers)


def test_bop_steps_the_binary_weights_and_adam_the_rest():
    bop, adam = step("edge", "bop").optimizers
    assert isinstance(bop, bnn.optim.Bop)
    assert all(isinstance(parameter, Accumulator) for parameter in bop.param_groups[0]["params"])
    assert isinstance(adam, bnn.optim.Adam)
    assert not any(isinstance(parameter, Accumulator) for parameter in adam.param_groups[0]["params"])


def test_sgd_has_momentum():
    for preset in ("standard", "edge"):
        (sgd,) = step(preset, "sgd").optimizers
        assert sgd.param_groups[0]["momentum"] == 0.9


def test_slices_are_the_preset_s_unless_they_are_given():
    assert step("edge", "adam").slice_size is None
    assert step("edge", "adam", slice_size=4).slice_size == 4
    assert step("edge-min", "adam").slice_size == 50 * 128 * 32 * 32 // 256


def test_tiny_steps_can_be_taken():
    for preset in PRESETS:
        tiny = tiny_step(Way(preset, "adam", 500))
        before = [parameter.detach().clone() for parameter in tiny.model.parameters()]
        tiny.take(torch.randn(2, 1, 2, 2), torch.tensor([0, 1]))
        changed = [not torch.equal(*pair) for pair in zip(before, tiny.model.parameters(), strict=True)]
        assert any(changed), preset


def test_what_does_not_go_together():
    plain = Network("mine", lambda: torch.nn.Linear(4, 2), (4,))
    check_way(plain, "standard", "sgd")
    check_way(plain, None, None)
    with pytest.raises(UsageError, match="mine does not let store and norm be chosen"):
        check_way(plain, "edge", None)
    with pytest.raises(UsageError, match="leave out --optimizer bop"):
        check_way(find_network("mlp", None), "edge-min", "bop")
    with pytest.raises(UsageError, match="bop steps binary weights"):
        step_on_meta(plain, Way("standard", "bop", 10))
