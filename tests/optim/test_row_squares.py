"""Adam with one mean square a row, of accumulators of 8 bits: steps by the values of gradients, by the formula."""

import math

import pytest
import torch

from bnn.bits import BitTensor
from bnn.errors import CheckpointError, NonFiniteError
from bnn.models import mlp
from bnn.optim import Adam
from bnn.presets import edge_min
from bnn.training.snapshot import optimizer_tensors, restore_optimizer
from bnn.weights import Accumulator

RATE, DECAY = 2 / 128, 0.999
OPTIONS = {"lr": RATE, "betas": (0.0, DECAY), "eps": 1e-20, "row_squares": True, "limit_steps": 4.0}


def made(shape=(3, 50), **options):
    codes = Accumulator(torch.zeros(shape, dtype=torch.int8))
    return codes, Adam([{"params": [codes], **OPTIONS, **options}])


def moved(gradient, steps=1, **options):
    """Codes after some steps by a gradient."""
    codes, optimizer = made(gradient.shape, **options)
    for _ in range(steps):
        codes.grad = gradient
        optimizer.step()
    return codes.detach(), optimizer.state[codes]


def test_a_step_is_the_gradient_over_the_root_mean_square_of_its_row():
    gradient = torch.randn((4, 20_000), generator=torch.Generator().manual_seed(0)).bfloat16()
    gradient[1] *= 64
    gradient[2] = 0
    codes, state = moved(gradient)
    squares = gradient.double().square().mean(1)
    torch.testing.assert_close(state["row_avg_sq"].double(), (1 - DECAY) * squares, rtol=1e-3, atol=0)
    expected = -2 * (gradient.double() / squares.sqrt().clamp(min=1e-9)[:, None]).clamp(-4, 4)
    assert (codes - expected).abs().max() < 1.01, "rounded to a neighbour"
    for row in (0, 1, 3):  # on average: the error of a sum of 20,000 such roundings
        assert (codes - expected)[row].sum().abs() < 4 * math.sqrt(20_000 / 4)
    assert not codes[2].any()


def test_the_mean_square_runs_over_the_steps():
    small, large = torch.full((1, 8), 1.0).bfloat16(), torch.full((1, 8), 2.0).bfloat16()
    codes, optimizer = made((1, 8))
    for gradient in (small, large):
        codes.grad = gradient
        optimizer.step()
    expected = (1 - DECAY) * (DECAY * 1 + 4)
    assert optimizer.state[codes]["row_avg_sq"].item() == pytest.approx(expected, rel=1e-6)


def test_no_weight_moves_further_than_the_limit():
    gradient = torch.full((1, 400), 1e-3).bfloat16()
    gradient[0, 7] = 1.0
    codes, _ = moved(gradient)
    assert codes[0, 7] == -8  # four learning rates, and not the twenty of 1 over the root of 1 / 400
    assert codes[0, 8:].abs().max() <= 1


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**30])
def test_the_size_of_all_gradients_does_not_matter(factor):
    gradient = torch.randn((3, 50), generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(moved(gradient * factor, steps=3)[0], moved(gradient, steps=3)[0])


def test_gradients_of_other_kinds_are_taken_as_bfloat16():
    gradient = torch.randn((3, 50), generator=torch.Generator().manual_seed(1))
    assert torch.equal(moved(gradient)[0], moved(gradient.bfloat16())[0])
    signs = BitTensor.from_dense(gradient)
    assert torch.equal(moved(signs)[0], moved(signs.dense().bfloat16())[0])


def test_a_code_that_changes_its_sign_goes_beyond_zero():
    codes, _ = moved(torch.ones((1, 16)), hysteresis_steps=20.0)
    assert codes.tolist() == [[-40] * 16]


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e38])
def test_a_gradient_that_is_not_finite_leaves_no_trace(value):
    gradient = torch.ones((3, 50)).bfloat16()
    codes, state = moved(gradient)
    before = codes.clone(), {name: torch.as_tensor(x).clone() for name, x in state.items()}
    codes, optimizer = made()
    codes.grad = gradient
    optimizer.step()
    codes.grad = gradient.clone()
    codes.grad[1, 2] = value
    with pytest.raises(NonFiniteError, match="the gradient of the optimizer's parameter 0"):
        optimizer.step()
    assert torch.equal(codes.detach(), before[0])
    assert all(torch.equal(torch.as_tensor(x), before[1][name]) for name, x in optimizer.state[codes].items())


@pytest.mark.parametrize("steps", [0, 1])
def test_in_backward_too_and_the_step_does_not_count(steps):
    codes, optimizer = made()
    for _ in range(steps):
        codes.grad = torch.ones((3, 50)).bfloat16()
        optimizer.step_one(0)
    before = codes.detach().clone()
    codes.grad = torch.full((3, 50), math.inf).bfloat16()
    with pytest.raises(NonFiniteError, match="the gradient of the optimizer's parameter 0"):
        optimizer.step_one(0)
    assert torch.equal(codes.detach(), before)
    assert optimizer.state[codes].get("step", 0) == steps
    assert not steps or optimizer.state[codes]["row_avg_sq"].isfinite().all()


def test_a_state_that_is_not_finite_is_named_in_backward_too():
    codes, optimizer = made()
    codes.grad = torch.ones((3, 50)).bfloat16()
    optimizer.step_one(0)
    optimizer.state[codes]["row_avg_sq"][1] = math.nan
    codes.grad = torch.ones((3, 50)).bfloat16()
    with pytest.raises(NonFiniteError, match="or its state is not finite: go on from an earlier checkpoint"):
        optimizer.step_one(0)


def test_its_state_comes_back_and_others_are_refused():
    gradient = torch.ones((3, 50)).bfloat16()
    codes, optimizer = made()
    codes.grad = gradient
    optimizer.step()
    tensors, state = optimizer_tensors(optimizer)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    assert {name: (x.shape, x.dtype) for name, x in tensors.items()} == {"0.row_avg_sq": ((3,), torch.float32)}
    _, fresh = made()
    restore_optimizer(fresh, tensors, state)
    assert fresh.state[fresh.param_groups[0]["params"][0]]["row_avg_sq"].tolist() == tensors["0.row_avg_sq"].tolist()
    for wrong in ({}, {"0.row_avg_sq": torch.zeros(4)}, {"0.row_avg_sq": torch.zeros(3).double()}):
        with pytest.raises(CheckpointError, match="row_avg_sq is not a float32 of each of 3 rows"):
            restore_optimizer(made()[1], wrong, state)
    with pytest.raises(CheckpointError, match="row_avg_sq has a mean square below 0"):
        restore_optimizer(made()[1], {"0.row_avg_sq": torch.tensor([1.0, -1e-9, 1.0])}, state)


def test_a_state_of_steps_by_signs_is_refused():
    codes = Accumulator(torch.zeros((3, 50), dtype=torch.int8))
    by_signs = Adam([codes], lr=RATE, betas=(0.0, 0.0))
    with pytest.raises(CheckpointError, match="has None as row_squares, and here True"):
        restore_optimizer(made()[1], *optimizer_tensors(by_signs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.9, 0.999)}, "the decay of the mean is 0"),
        ({"limit_steps": 0.0}, "limit_steps is finite and above 0"),
    ],
)
def test_refuses_options_out_of_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_refuses_parameters_that_are_no_accumulators_of_8_bits():
    for parameter in (Accumulator(torch.zeros(2, 3).half()), torch.nn.Parameter(torch.zeros(2, 3))):
        with pytest.raises(ValueError, match="row_squares is for accumulators of int8"):
            Adam([{"params": [parameter], **OPTIONS}])


def test_the_preset_is_that_of_the_records():
    step = edge_min(lambda: mlp(input_shape=(8,), hidden=(8,), classes=3), (8,))
    weights, others = step.optimizer.param_groups
    expected = {**OPTIONS, "lr": 2e-2, "hysteresis_steps": 20.0}
    assert {name: weights[name] for name in expected} == expected
    assert "row_squares" not in others
    assert others["lr"] == 1e-2
