import math

import pytest
import torch

from bnn.optim import Adam, Boolean
from bnn.weights import Accumulator
from bnn.weights.accumulator import decode
from tests.contracts import randn, signs


def accumulators(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, reach: float = 1.0) -> Accumulator:
    start = signs(randn(*shape, seed=seed)) / reach
    return Accumulator(start if dtype is not torch.int8 else (128 * start).clamp(max=127).to(dtype))


def of_the_paper(weight, gradients, rate, *, leak=True, reach=math.inf):
    """The algorithm as it is printed, with the weight and its m apart; m w stays at 1 - reach and above."""
    m, kept = torch.zeros_like(weight), 0.0 if leak else 1.0
    for q in gradients:
        m = kept * m + rate * q
        m = torch.where(m * weight < 1 - reach, (1 - reach) * weight, m)
        flips = m * weight >= 1
        weight, m = torch.where(flips, -weight, weight), torch.where(flips, 0.0, m)
        kept = 1 - flips.float().mean().item() if leak else 1.0
    return weight, m


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize(("reach", "clamps_at"), [(16.0, math.inf), (1.5, 1.5), (1.0, 1.0)])
def test_is_the_algorithm_of_the_paper(leak, reach, clamps_at):
    """With a reach of 16 no m of these gradients gets to its bound."""
    parameter = accumulators(7, 40, reach=reach)
    weight = signs(parameter.detach())
    gradients = [randn(7, 40, seed=10 + k) for k in range(12)]
    optimizer = Boolean([parameter], lr=0.3, leak=leak, reach=reach)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    expected, m = of_the_paper(weight, gradients, 0.3, leak=leak, reach=clamps_at)
    assert torch.equal(signs(parameter.detach()), expected)
    assert not torch.equal(expected, weight)
    torch.testing.assert_close(reach * parameter.detach(), expected - m, atol=1e-5, rtol=1e-5)


def test_a_weight_flips_where_the_gradient_has_its_sign():
    parameter = Accumulator(torch.tensor([1.0, 1.0, -1.0, -1.0]))
    parameter.grad = torch.tensor([2.0, -2.0, 2.0, -2.0])
    optimizer = Boolean([parameter], lr=0.6, reach=1)
    optimizer.step()
    assert parameter.tolist() == [-1, 1, -1, 1]
    assert optimizer.state[parameter]["kept_share"] == 0.5


def test_the_leak_is_the_share_of_weights_that_the_last_step_kept():
    parameter = Accumulator(torch.tensor([1.0, 1.0, 1.0, 1.0]))
    optimizer = Boolean([parameter], lr=0.5, reach=1)
    parameter.grad = torch.tensor([2.0, 1.0, 0.0, 0.0])
    optimizer.step()  # the first flips
    torch.testing.assert_close(parameter.detach(), torch.tensor([-1.0, 0.5, 1.0, 1.0]))
    parameter.grad = torch.zeros(4)
    optimizer.step()  # m of the second was 0.5, times 3/4
    torch.testing.assert_close(parameter.detach(), torch.tensor([-1.0, 0.625, 1.0, 1.0]))
    optimizer.step()  # nothing flipped
    torch.testing.assert_close(parameter.detach(), torch.tensor([-1.0, 0.625, 1.0, 1.0]))


def test_with_all_switches_off_it_is_the_step_of_edge_min():
    one, other = (Accumulator(randn(6, 50).clamp(-1, 1)) for _ in range(2))
    boolean = Boolean([one], lr=0.02, magnitude=False, leak=False, hysteresis=0.4, reach=1)
    edge_min = Adam([other], lr=0.02, betas=(0.0, 0.0), hysteresis_steps=20.0)
    for step in range(60):
        for parameter in (one, other):
            parameter.grad = randn(6, 50, seed=step)
        boolean.step()
        edge_min.step()
    torch.testing.assert_close(one.detach(), other.detach(), atol=1e-4, rtol=0)


def test_the_magnitude_counts_or_does_not():
    for magnitude, expected in ((True, [0.8, 0.2]), (False, [0.8, 0.8])):
        parameter = Accumulator(torch.ones(2))
        parameter.grad = torch.tensor([1.0, 4.0])
        Boolean([parameter], lr=0.2, magnitude=magnitude, reach=1).step()
        torch.testing.assert_close(parameter.detach(), torch.tensor(expected))


def test_a_relative_step_is_one_of_gradients_over_their_mean_magnitude():
    """However large the gradients are, and over more than one chunk of rows."""
    gradient = randn(300, 1000, seed=1)
    absolute, *relative = (accumulators(300, 1000, reach=16) for _ in range(3))
    for parameter, factor, options in (
        (absolute, 1 / gradient.abs().mean(), {}),
        (relative[0], 1.0, {"relative": True}),
        (relative[1], 1e-6, {"relative": True}),
    ):
        parameter.grad = gradient * factor
        Boolean([parameter], lr=0.7, **options).step()
        torch.testing.assert_close(parameter.detach(), absolute.detach())
    assert 0.1 < (signs(absolute.detach()) != signs(accumulators(300, 1000))).float().mean() < 0.2


def test_a_relative_step_of_nothing_moves_nothing():
    parameter = accumulators(3, 4, reach=16)
    before = parameter.detach().clone()
    parameter.grad = torch.zeros(3, 4)
    Boolean([parameter], lr=0.7, relative=True).step()
    assert torch.equal(parameter.detach(), before)


def test_eight_bits_follow_the_floats():
    narrow, wide = (accumulators(20, 300, dtype=dtype, reach=4) for dtype in (torch.int8, torch.float32))
    optimizers = [Boolean([parameter], lr=0.05, leak=False, reach=4) for parameter in (narrow, wide)]
    for step in range(40):
        for parameter, optimizer in zip((narrow, wide), optimizers, strict=True):
            parameter.grad = randn(20, 300, seed=step)
            optimizer.step()
    agree = (signs(decode(narrow.detach())) == signs(wide.detach())).float().mean()
    assert agree > 0.97


def test_real_parameters_are_stepped_by_adam():
    one, other = (torch.nn.Parameter(randn(5)) for _ in range(2))
    for parameter, optimizer in ((one, Boolean([one], lr=0.1)), (other, torch.optim.Adam([other], lr=0.1))):
        for step in range(3):
            parameter.grad = randn(5, seed=step)
            optimizer.step()
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("hysteresis", [0.0, 1.1])
def test_hysteresis_is_checked(hysteresis):
    with pytest.raises(ValueError, match=r"^hysteresis lies in \(0, 1\], got"):
        Boolean([accumulators(2, 2)], hysteresis=hysteresis)


@pytest.mark.parametrize("reach", [0.5, math.inf])
def test_reach_is_checked(reach):
    with pytest.raises(ValueError, match=r"^reach is at least 1 and finite, got"):
        Boolean([accumulators(2, 2)], reach=reach)


@pytest.mark.parametrize("state", [{"step": 0}, {"step": 1, "kept_share": 1.5}, {"step": 1, "kept_share": "x"}])
def test_a_state_that_no_step_leaves_is_refused(state):
    parameter = accumulators(2, 2)
    optimizer = Boolean([parameter])
    with pytest.raises(ValueError, match=r"steps are counted|share of kept"):
        optimizer.check_state(optimizer.param_groups[0], parameter, state)
