import pytest
import torch

from bnn.layers import RPReLU


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_equals_its_formula(shape, generator):
    layer = RPReLU(3)
    gamma, slope, zeta = [0.5, -1.0, 0.0], [0.25, 2.0, 0.0], [1.0, 0.0, -3.0]
    with torch.no_grad():
        for parameter, values in ((layer.gamma, gamma), (layer.slope, slope), (layer.zeta, zeta)):
            parameter.copy_(torch.tensor(values))
    x = torch.randn(shape, generator=generator)
    y = layer(x)
    for c in range(3):
        shifted = x[:, c] - gamma[c]
        expected = torch.where(shifted > 0, shifted, slope[c] * shifted) + zeta[c]
        torch.testing.assert_close(y[:, c], expected)


def test_gradients_are_right(generator):
    layer = RPReLU(3).double()
    x = torch.randn((4, 3, 2), generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


def test_starts_as_a_prelu(generator):
    x = torch.randn((5, 3), generator=generator)
    torch.testing.assert_close(RPReLU(3, slope=0.1)(x), torch.where(x > 0, x, 0.1 * x))


def test_state_dict_keys_are_stable():
    assert list(RPReLU(3).state_dict()) == ["gamma", "slope", "zeta"]
