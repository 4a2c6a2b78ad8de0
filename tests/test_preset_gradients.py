"""Which gradients a preset forms: those of products as integers, those of weights real, as signs or ternary."""

from functools import partial

import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLayer
from bnn.models import cnv
from bnn.presets import edge, edge_min, prepare
from bnn.weights import is_accumulator
from tests.contracts import randn
from tests.test_presets import INPUT, NETWORK


@pytest.mark.parametrize("preset", ["edge", "edge-min", "edge-fast", "edge-signs"])
def test_gradients_of_products_are_integers(preset):
    step = prepare(preset, partial(cnv, classes=4), input_shape=(3, 32, 32))
    layers = [module for module in step.model.modules() if isinstance(module, BinaryLayer)]
    assert {module.window is None for module in layers} == {False, True}
    quantizers = [module.grad_quantizer for module in layers]
    for module, quantizer in zip(layers, quantizers, strict=True):
        assert quantizer.gives_integers
        bits = 8 if module.window is None else 5 if module.store.shape[0] >= 128 else 7
        assert quantizer.storage_bits == (8 if preset == "edge-signs" else bits)
        assert quantizer.largest == 2 ** (quantizer.storage_bits - 1) - 1
        assert quantizer.ternary_weights is (preset == "edge-fast" and module.window is not None)
    used = {quantizer.generator for quantizer in quantizers}
    assert used == set(step.generators.values()), "checkpoints keep what roundings draw from"


@pytest.mark.parametrize("preset", ["edge", "edge-min", "edge-fast"])
def test_gradients_that_are_sums_over_few_outputs_have_more_bits(preset):
    for outputs, groups, bits in ((64, 1, 7), (127, 1, 7), (128, 1, 5), (256, 2, 5), (256, 4, 7)):
        block = partial(BinaryBlock, BinaryConv2d(64, outputs, 3, groups=groups), nn.BatchNorm2d(outputs))
        assert prepare(preset, block, input_shape=(64, 8, 8)).model.product.grad_quantizer.storage_bits == bits


def gradients_seen(step):
    """Types and dtypes of the gradients that come to the accumulators in a step, and whether one is left then."""
    accumulators = [parameter for parameter in step.model.parameters() if is_accumulator(parameter)]
    seen, left = [], []
    for parameter in accumulators:
        parameter._hooks = dict(
            [(-1, lambda of: seen.append((type(of.grad), of.grad.dtype))), *parameter._hooks.items()]
        )
    step.take(
        randn(8, *INPUT),
        torch.arange(8) % 3,
        before_update=lambda: left.extend(of for of in accumulators if of.grad is not None),
    )
    assert len(seen) == len(accumulators)
    return set(seen), bool(left)


def test_gradients_are_signs_or_ternary():
    with pytest.raises(ValueError, match="either signs or formed of ternary ones"):
        edge_min(NETWORK, INPUT, sign_gradients=True, ternary_gradients=True)


def test_weights_are_stepped_in_backward_by_real_gradients_or_by_signs():
    real, signs = {(torch.Tensor, torch.float32)}, {(BitTensor, torch.float32)}
    assert gradients_seen(prepare("edge", NETWORK, input_shape=INPUT)) == (real, False)
    assert gradients_seen(prepare("edge-min", NETWORK, input_shape=INPUT)) == ({(torch.Tensor, torch.bfloat16)}, False)
    assert gradients_seen(prepare("edge-signs", NETWORK, input_shape=INPUT)) == (signs, False)
    assert gradients_seen(edge(NETWORK, INPUT, sign_gradients=True)) == (signs, True)
