import math

import pytest
import torch
from torch import nn

from bnn.cost.energy import Ledger
from bnn.cost.meters.gated_xnor import GatedXnorCount, GatedXnorMeter, count_gated_xnor, gated
from bnn.data import Dataset, Split
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.quantizers import Ternary
from bnn.training import Run, Trainer
from bnn.weights import DiscreteStore

TERNARY = Ternary(threshold=0.5)


def by_hand(x: torch.Tensor, weight: torch.Tensor, padding: int) -> int:
    """Pairs of operands that are both not zero, one by one."""
    x = nn.functional.pad(x, [padding] * 4)
    active = 0
    size = weight.shape[2]
    for i in range(x.shape[2] - size + 1):
        for j in range(x.shape[3] - size + 1):
            window = x[:, None, :, i : i + size, j : j + size]
            active += int(((window != 0) & (weight[None] != 0)).sum())
    return active


def test_a_convolution_is_counted_product_by_product(generator):
    layer = BinaryConv2d(3, 4, 3, padding=1, store=DiscreteStore, input_quantizer=TERNARY)
    x = torch.randn(2, 3, 5, 6, generator=generator)
    (count,) = count_gated_xnor(layer, x)
    assert count.operations == 2 * 4 * 5 * 6 * 27
    assert count.active == by_hand(TERNARY(x), layer.store.value(), padding=1)


def test_uniform_ternary_operands_let_five_ninths_rest(generator):
    """1 - (2/3)^2 in a binomial's error; the pairs share operands, so the two counts of zeros set the error."""
    layer = BinaryLinear(2000, 300, store=DiscreteStore, input_quantizer=TERNARY)
    uniform = torch.randint(-1, 2, (300, 2000), generator=generator)
    for delta in (torch.full((300, 2000), -2.0), uniform + 1.0):
        layer.store.program(delta, generator)
    x = torch.randint(-1, 2, (200, 2000), generator=generator).float()
    (count,) = count_gated_xnor(layer, x)
    deviation = 2 / 3 * math.sqrt(2 / 9) * math.sqrt(1 / (300 * 2000) + 1 / (200 * 2000))
    assert count.resting_probability == pytest.approx(5 / 9, abs=4.5 * deviation)


def test_binary_operands_never_rest(generator):
    layer = BinaryLinear(30, 4)
    (count,) = count_gated_xnor(layer, torch.randn(5, 30, generator=generator))
    assert count == GatedXnorCount("", 5 * 4 * 30, 5 * 4 * 30)
    assert count.resting_probability == 0


def test_only_products_of_discrete_operands_count_and_the_model_stays_as_it_was(generator):
    model = nn.Sequential(
        BinaryLinear(6, 8, store=DiscreteStore, input_quantizer=None),
        nn.BatchNorm1d(8),
        BinaryLinear(8, 7, store=lambda shape: DiscreteStore(shape, space=3), input_quantizer=TERNARY),
        BinaryLinear(7, 5, store=DiscreteStore, input_quantizer=TERNARY),
        nn.Linear(5, 2),
    )
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counts = count_gated_xnor(model, torch.randn(3, 6, generator=generator))
    assert [(count.name, count.operations) for count in counts] == [("3", 3 * 5 * 7)]
    assert 0 < counts[0].active < counts[0].operations
    assert model.training
    assert not model[1].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_gated_ledger_leaves_out_what_rests_and_nothing_else():
    ledger = Ledger()
    ledger.multiply_accumulates("a", "forward", (2, 2), 900, terms=9)
    ledger.multiply_accumulates("b", "forward", (2, 2), 50, terms=9)
    ledger.multiply_accumulates("a", "backward", (2, 32), 900, terms=9)
    ledger.moves("read", "a", "forward", 2, 70)
    expected = Ledger()
    expected.multiply_accumulates("a", "forward", (2, 2), 400, terms=9)
    expected.multiply_accumulates("b", "forward", (2, 2), 50, terms=9)
    expected.multiply_accumulates("a", "backward", (2, 32), 900, terms=9)
    expected.moves("read", "a", "forward", 2, 70)
    assert gated(ledger, [GatedXnorCount("a", 9, 4)]) == expected


@pytest.mark.parametrize("quantizer", [TERNARY, None])
def test_a_run_s_summary_tells_the_share(quantizer, tmp_path, generator):
    images = torch.randint(0, 256, (20, 1, 4, 4), generator=generator, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(20) % 2)
    data = Dataset(name="tiny", train=split, test=split, classes=("a", "b"), mean=(0.5,), std=(0.3,), source="drawn")
    model = nn.Sequential(nn.Flatten(), BinaryLinear(16, 2, store=DiscreteStore, input_quantizer=quantizer))
    optimizer = DST(Adam(model.parameters(), lr=0.01))
    run = Run(
        model=model, data=data, optimizer=optimizer, epochs=1, batch_size=10, seed=0, callbacks=[GatedXnorMeter()]
    )
    summary = Trainer(run, tmp_path / "run").fit()
    if quantizer is None:
        assert summary["resting_probability"] is None
    else:
        assert 0 < summary["resting_probability"] < 1
