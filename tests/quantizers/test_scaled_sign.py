import torch

from bnn.quantizers import ScaledSign
from tests.contracts import signs


def test_alpha_minimises_the_squared_error_of_each_channel(generator):
    w = torch.randn((6, 4, 3, 3), generator=generator, dtype=torch.float64)
    alpha = ScaledSign().scale(w)

    def error(factor: torch.Tensor) -> torch.Tensor:
        return (w - factor.view(-1, 1, 1, 1) * signs(w)).square().flatten(1).sum(1)

    for step in (-0.01, 0.01):
        assert (error(alpha + step) > error(alpha)).all()
    # The parabola (alpha - a)^2 n above its minimum: the minimum lies exactly at alpha.
    torch.testing.assert_close(error(alpha + 0.5) - error(alpha), torch.full((6,), 0.25 * 36, dtype=torch.float64))
    torch.testing.assert_close(error(alpha - 0.5), error(alpha + 0.5))


def test_the_gradient_of_alpha_is_sign_over_count(generator):
    w = torch.randn((6, 10), generator=generator).requires_grad_()
    grad = torch.arange(1.0, 7.0)
    ScaledSign().scale(w).backward(grad)
    torch.testing.assert_close(w.grad, grad.view(-1, 1) * signs(w.detach()) / 10)


def test_the_sign_itself_is_not_scaled(generator):
    w = torch.randn((6, 10), generator=generator)
    assert torch.equal(ScaledSign(window=0.5)(w).dense(), signs(w))
