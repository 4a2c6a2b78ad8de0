import pytest
import torch

from bnn.quantizers import ApproxSign
from tests.contracts import dense, saved_bytes, signs


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


class TestNormalized:
    """The public code's x / sqrt(var + 1e-5) of each example before the sign."""

    @staticmethod
    def gradient(quantizer: ApproxSign, x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        quantizer(x).backward(torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype))
        return x.grad

    @staticmethod
    def published(x: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt(x.var(tuple(range(1, x.dim())), keepdim=True) + 1e-5)

    @pytest.mark.parametrize("shape", [(3, 4, 5, 6), (5, 17), (1, 2)])
    @pytest.mark.parametrize("size", [1e-3, 0.3, 20.0])
    def test_the_gradient_is_autograd_s_of_the_published_formula(self, shape, size, generator):
        x = size * (torch.randn(shape, generator=generator, dtype=torch.float64) + 0.3)
        leaf = x.clone().requires_grad_()
        y = self.published(leaf)
        y.backward(self.gradient(ApproxSign(), y.detach()))
        torch.testing.assert_close(self.gradient(ApproxSign(normalize=True), x), leaf.grad, rtol=1e-9, atol=1e-12)

    def test_the_signs_stay(self, generator):
        x = torch.randn((4, 9), generator=generator)
        assert torch.equal(dense(ApproxSign(normalize=True)(x)), signs(x))

    def test_examples_of_any_size_have_the_same_window(self, generator):
        x = torch.randn((1, 4, 5, 6), generator=generator, dtype=torch.float64)
        one, large = (self.gradient(ApproxSign(normalize=True), size * x) for size in (1.0, 100.0))
        torch.testing.assert_close(100 * large, one, rtol=1e-3, atol=1e-4)  # but for the 1e-5
        assert not self.gradient(ApproxSign(), 100 * x).count_nonzero() > x.numel() / 20

    def test_nothing_is_left_of_what_changes_the_size_of_an_example(self, generator):
        x = 10 * torch.randn((6, 50), generator=generator, dtype=torch.float64)
        gradient = self.gradient(ApproxSign(normalize=True), x)
        assert ((gradient * x).sum(1).abs() < 1e-6 * (gradient * x).abs().sum(1)).all()

    @pytest.mark.parametrize("shape", [(3, 1), (0, 5)])
    def test_examples_without_a_variance_have_a_finite_gradient(self, shape):
        assert self.gradient(ApproxSign(normalize=True), torch.ones(shape)).isfinite().all()

    def test_backward_keeps_nothing_but_the_input(self, generator):
        x = torch.randn((4, 3, 5, 5), generator=generator).requires_grad_()
        with saved_bytes() as saved:
            y = ApproxSign(normalize=True)(x)
        assert saved == {x.untyped_storage().data_ptr(): x.nbytes}
        assert y.requires_grad

    def test_repr_tells_it(self):
        assert repr(ApproxSign(normalize=True)) == "ApproxSign(normalize=True)"
