import pytest
import torch

from bnn.cost.memory.predicted import predict_step
from bnn.layers import BinaryLinear
from bnn.models import mlp
from bnn.models.parts import quantize_gradients
from bnn.presets import prepare
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


@pytest.mark.parametrize("budget", [0.5, 6.0, 15.0, 25.0])
def test_probabilities_are_those_of_capping_one_after_the_other(budget):
    ranges = (2 * randn(24)).exp()
    ranges[3] = 0
    expected, capped = torch.zeros(24), torch.zeros(24, dtype=torch.bool)
    for _ in range(24):
        shares = torch.where(capped, 0.0, ranges) * max(0.0, budget - int(capped.sum()))
        expected = torch.where(capped, 1.0, shares / ranges[~capped].sum().clamp(min=1e-30))
        capped |= expected >= 1
    torch.testing.assert_close(keep_probabilities(ranges, budget=budget), expected)


def test_the_memory_of_a_step_is_predicted():
    """Where only shapes are known no number says that all probabilities are found."""

    def build():
        model = mlp(input_shape=(1, 4, 4), hidden=(16, 16))
        quantize_gradients(model, lambda layer: SamplePruning(generator=torch.Generator()))
        return model

    with torch.device("meta"):
        step = prepare("standard", build, input_shape=(1, 4, 4))
    assert predict_step(step, input_shape=(1, 4, 4), batch_size=8).table.total_bytes > 0


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
