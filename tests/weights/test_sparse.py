import math

import pytest
import torch
from torch import nn

from bnn.codec import load_into, load_tensors, save
from bnn.cost import count_network, storage
from bnn.errors import NonFiniteError
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm
from bnn.methods import weights_of
from bnn.quantizers.gradients import Int8Gradient
from bnn.weights import SparseStore
from tests.contracts import randn

KEPT = torch.tensor([[True, False, True, False], [False, False, True, False]])
WEIGHT = torch.tensor([[0.5, 9.0, -1.0, 0.1], [-3.0, 0.0, 0.0, 2.0]])


@pytest.fixture
def store() -> SparseStore:
    store = SparseStore((2, 4))
    with torch.no_grad():
        store.weight.copy_(WEIGHT)
    return store


def test_is_real_at_first(store):
    assert not store.is_ternary
    assert store.storage_bits == 32
    assert torch.equal(store.read(), WEIGHT)
    store.read().backward(torch.arange(8.0).view(2, 4))
    assert torch.equal(store.weight.grad, torch.arange(8.0).view(2, 4))


def test_reads_the_signs_of_kept_weights_at_their_mean_magnitude(store):
    store.ternarize_(KEPT)
    assert store.is_ternary
    assert store.storage_bits == 2
    assert torch.equal(store.read(), torch.tensor([[0.5, 0, -0.5, 0], [0, 0, 0.5, 0]]))
    gradient = torch.arange(1.0, 9).view(2, 4)
    store.read().backward(gradient)
    assert torch.equal(store.weight.grad, gradient)


def test_is_binary_where_all_are_kept_and_zero_where_none_is(store):
    store.ternarize_(torch.ones(2, 4, dtype=torch.bool))
    assert store.read().unique().tolist() == [-WEIGHT.abs().mean().item(), WEIGHT.abs().mean().item()]
    store.ternarize_(torch.zeros(2, 4, dtype=torch.bool))
    assert not store.read().any()


def test_the_choice_can_change(store):
    store.ternarize_(KEPT)
    store.ternarize_(~KEPT)
    torch.testing.assert_close(store.read(), torch.tensor([[0, 2.82, 0, 2.82], [-2.82, 2.82, 0, 2.82]]))


def test_a_state_dict_tells_which_of_the_two_it_is(store):
    real, ternary = SparseStore((2, 4)), SparseStore((2, 4))
    real.load_state_dict(store.state_dict())
    store.ternarize_(KEPT)
    ternary.load_state_dict(store.state_dict())
    assert (real.is_ternary, real.storage_bits) == (False, 32)
    assert (ternary.is_ternary, ternary.storage_bits) == (True, 2)
    assert torch.equal(ternary.read(), store.read())
    assert torch.equal(real.read(), WEIGHT)


def test_refuses_a_nan(store):
    store.ternarize_(KEPT)
    with torch.no_grad():
        store.weight[0, 1] = math.nan
    with pytest.raises(NonFiniteError, match="NaN"):
        store.read()


def network() -> nn.Sequential:
    return nn.Sequential(
        BinaryConv2d(3, 8, 3, store=SparseStore, input_quantizer=None),
        nn.ReLU(),
        nn.Flatten(),
        BinaryLinear(8 * 4 * 4, 5, store=SparseStore, input_quantizer=None, learned_scale=True),
    )


def test_layers_train_it_in_both_states(generator):
    model, x = network(), randn(2, 3, 6, 6)
    expected = nn.functional.conv2d(x, model[0].store.weight)
    torch.testing.assert_close(model[0](x), expected)
    assert len(weights_of(model)) == 2
    assert storage(model).bits_per_weight == 32
    for store in (model[0].store, model[3].store):
        store.ternarize_(torch.rand(store.shape, generator=generator) < 0.3)
    model(x).square().sum().backward()
    for store in (model[0].store, model[3].store):
        assert store.weight.grad[store.kept].any()
        assert store.weight.grad[~store.kept].any()
    assert storage(model).bits_per_weight == 2


def test_a_model_file_holds_three_levels_and_gives_the_same_outputs(tmp_path, generator):
    model = network()
    for store in (model[0].store, model[3].store):
        store.ternarize_(torch.rand(store.shape, generator=generator) < 0.3)
    save(model, tmp_path / "m.bnnz")
    fresh = network()
    load_into(fresh, tmp_path / "m.bnnz")
    x = randn(2, 3, 6, 6)
    assert torch.equal(fresh(x), model(x))
    assert len(load_tensors(tmp_path / "m.bnnz")["0.store.weight"].unique()) == 3


def test_draws_from_its_generator():
    store = SparseStore((400, 100))
    store.initialize(torch.Generator().manual_seed(1))
    assert store.weight.std().item() == pytest.approx(0.1, rel=0.02)
    first = store.weight.clone()
    store.initialize(torch.Generator().manual_seed(1))
    assert torch.equal(store.weight, first)


@pytest.mark.parametrize("kept", [True, False])
def test_is_not_binary_and_is_counted_on_shapes_alone(kept):
    layer = BinaryLinear(4, 2, store=SparseStore, grad_quantizer=Int8Gradient(generator=torch.Generator()))
    layer.store.ternarize_(torch.ones(2, 4, dtype=torch.bool) if kept else KEPT)
    assert not layer.store.is_binary
    block = BinaryBlock(layer, BinaryNorm(2))
    assert not block.is_fused
    assert count_network(block, (4,)).layers[0].weights == 8
