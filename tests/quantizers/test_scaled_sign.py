import pytest
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


def test_the_mean_of_a_layer_is_that_of_all_its_weights(generator):
    w = torch.randn((6, 4, 3, 3), generator=generator)
    torch.testing.assert_close(ScaledSign(scope="layer").scale(w), w.abs().mean().expand(6))


def test_a_constant_scale_has_no_gradient_and_a_clip_bounds_it():
    w = torch.tensor([[0.5, -3.0], [0.25, 0.25]], requires_grad=True)
    assert not ScaledSign(constant=True).scale(w).requires_grad
    assert ScaledSign(clip=1.0).scale(w).tolist() == [0.75, 0.25]
    ScaledSign(clip=1.0).scale(w).sum().backward()
    assert w.grad.tolist() == [[0.5, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize(("options", "message"), [({"scope": "x"}, "one of filter, layer"), ({"clip": 0}, "above 0")])
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ScaledSign(**options)
