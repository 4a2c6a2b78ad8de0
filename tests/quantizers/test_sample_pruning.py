import pytest
import torch

from bnn.layers import BinaryLinear
from bnn.quantizers.gradients import SamplePruning
from bnn.quantizers.gradients.sample_pruning import keep_probabilities
from tests.contracts import randn


def test_probabilities_are_in_proportion_to_the_ranges():
    keep = keep_probabilities(torch.tensor([1.0, 2, 3, 2]), budget=1.0)
    torch.testing.assert_close(keep, torch.tensor([1.0, 2, 3, 2]) / 8)


def test_what_is_above_one_goes_to_the_others():
    keep = keep_probabilities(torch.tensor([100.0, 9, 1, 0]), budget=2.0)
    # The first is kept for certain; 1 is left for the others, of which the second would have 0.9.
    torch.testing.assert_close(keep, torch.tensor([1.0, 0.9, 0.1, 0.0]))
    twice = keep_probabilities(torch.tensor([100.0, 50, 1, 1]), budget=2.5)
    torch.testing.assert_close(twice, torch.tensor([1.0, 1.0, 0.25, 0.25]))


def test_fewer_examples_than_the_budget_are_all_kept():
    assert keep_probabilities(torch.tensor([3.0, 0, 0, 1]), budget=3.0).tolist() == [1, 0, 0, 1]
    assert keep_probabilities(torch.zeros(3), budget=1.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_element_has_one_bit_on_average(bits, generator):
    gradient = randn(64, 20)
    quantizer = SamplePruning(bits=bits, generator=generator)
    kept = torch.stack([(quantizer(gradient) != 0).any(1).float().mean() for _ in range(300)]).mean()
    assert kept.item() == pytest.approx(1 / bits, rel=0.06)


def test_each_example_has_a_grid_of_its_own_and_each_channel_that_of_the_weight_s(generator):
    gradient = randn(12, 5) * torch.logspace(-3, 0, 12)[:, None]
    quantizer = SamplePruning(bits=3, generator=generator)
    for values, dim in ((quantizer(gradient), 0), (quantizer.for_weight(gradient), 1)):
        for row in values.unbind(dim):
            largest = row.abs().max()
            if largest > 0:
                levels = 3 * row / largest
                torch.testing.assert_close(levels, levels.round())


def test_a_layer_takes_one_for_each_product(generator):
    layer = BinaryLinear(6, 4, grad_quantizer=SamplePruning(generator=generator))
    x = randn(8, 6).requires_grad_()
    layer(x).backward(randn(8, 4, seed=1))
    dropped = (x.grad == 0).all(1).sum().item()
    assert 0 < dropped < 8
    assert layer.store.weight.grad.any()


@pytest.mark.parametrize("bits", [1, 9])
def test_widths_are_checked(bits, generator):
    with pytest.raises(ValueError, match=f"^what sample pruning keeps has 2 to 8 bits, got {bits}$"):
        SamplePruning(bits=bits, generator=generator)
