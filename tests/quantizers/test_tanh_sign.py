import math

import pytest
import torch

from bnn.quantizers import TanhSign
from tests.contracts import randn


@pytest.mark.parametrize("fan_in", [1.0, 64.0])
def test_gradient_is_the_derivative_of_a_tanh(fan_in):
    x = (randn(50) * math.sqrt(fan_in)).requires_grad_()
    TanhSign(fan_in=fan_in)(x).sum().backward()
    y = x.detach().clone().requires_grad_()
    a = math.pi / (2 * math.sqrt(3 * fan_in))
    (torch.tanh(a * y) / a).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-6, rtol=1e-4)


def test_steps_stand_for_the_derivative():
    """They have its integral up to the last edge, where it has fallen to a tenth."""
    quantizer = TanhSign(fan_in=9.0)
    steps = quantizer.slope_steps
    a = math.pi / (2 * math.sqrt(27))
    ends = (0.0, *steps.edges)
    area = sum(s * (high - low) for s, low, high in zip(steps.slopes, ends, steps.edges, strict=False))
    assert area == pytest.approx(math.tanh(a * steps.edges[-1]) / a)
    assert 1 - math.tanh(a * steps.edges[-1]) ** 2 == pytest.approx(0.1)
    assert steps.slopes == tuple(sorted(steps.slopes, reverse=True))
    assert steps.slopes[-1] == 0


@pytest.mark.parametrize("fan_in", [0.0, -1.0, math.inf])
def test_fan_ins_are_checked(fan_in):
    with pytest.raises(ValueError, match="fan-in of a sum is above 0 and finite"):
        TanhSign(fan_in=fan_in)
