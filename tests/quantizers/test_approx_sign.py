import torch

from bnn.quantizers import ApproxSign
from tests.contracts import dense, signs


def factor(x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    ApproxSign()(x).backward(torch.ones_like(x))
    return x.grad


def test_values_are_signs(generator):
    x = torch.randn(50, generator=generator)
    x[0] = 0
    assert torch.equal(dense(ApproxSign()(x)), signs(x))


def test_the_gradient_factor_is_a_triangle_of_height_two():
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0])
    assert torch.equal(factor(x), torch.tensor([0.0, 0, 1, 2, 1.5, 0, 0]))


def test_the_gradient_factor_integrates_to_the_height_of_the_step():
    x = torch.linspace(-1.5, 1.5, 3001, dtype=torch.float64)
    torch.testing.assert_close(torch.trapezoid(factor(x), x).item(), 2.0)


def test_the_factor_multiplies_the_gradient(generator):
    x = torch.randn(50, generator=generator).requires_grad_()
    grad = torch.randn(50, generator=generator)
    ApproxSign()(x).backward(grad)
    assert torch.equal(x.grad, grad * (2 - 2 * x.detach().abs()).clamp(min=0))
