import pytest
import torch

from bnn.quantizers import DoReFa


def test_levels_are_equally_spaced_and_halves_go_to_the_even_one():
    x = torch.tensor([-2.0, 0.0, 0.16, 0.17, 0.5, 0.82, 0.84, 1.0, 3.0])
    assert torch.equal(DoReFa()(x) * 3, torch.tensor([0.0, 0, 0, 1, 2, 2, 3, 3, 3]))
    assert torch.equal(DoReFa(bits=1)(x), torch.tensor([0.0, 0, 0, 0, 0, 1, 1, 1, 1]))


def test_the_gradient_passes_between_0_and_1():
    x = torch.tensor([-0.01, 0.0, 0.4, 1.0, 1.01], requires_grad=True)
    DoReFa()(x).backward(torch.arange(1.0, 6.0))
    assert x.grad.tolist() == [0, 2, 3, 4, 0]


def test_bits_are_in_range():
    assert len(DoReFa(bits=8).levels) == 256
    for bits in (0, 9):
        with pytest.raises(ValueError, match=f"1 to 8 bits, got {bits}"):
            DoReFa(bits=bits)
