"""Each preset trains, resumes exactly and keeps between steps what it promises."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.bits import BitTensor
from bnn.errors import RecipeError
from bnn.layers import BinaryBlock, BinaryLayer, BinaryLinear
from bnn.models import binarynet, cnv, mlp, resnet20, resnete18
from bnn.presets import prepare
from bnn.training import Callback, Run, Trainer, warmup_cosine
from bnn.weights import AccumulatorStore, WeightStore
from tests.training.tiny_runs import tiny_dataset

PRESETS = ("standard", "edge", "edge-min")
INPUT = (1, 6, 6)
NETWORK = partial(mlp, classes=4, hidden=(64, 64))


class Stop(Exception):
    pass


class Losses(Callback):
    def __init__(self, *, stop_after=None):
        self.losses = []
        self.stop_after = stop_after

    def on_step_end(self, trainer, loss):
        self.losses.append(loss)
        if trainer.step == self.stop_after:
            trainer.save()
            raise Stop


def run_of(preset, *, epochs=3, slice_size=5):
    step = prepare(preset, NETWORK, input_shape=INPUT, seed=4)
    step.slice_size = step.slice_size and slice_size
    return Run(
        **vars(step),
        data=tiny_dataset(),
        epochs=epochs,
        batch_size=12,
        seed=0,
        validation=0.2,
        schedule=warmup_cosine(epochs),
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_learns(preset, tmp_path):
    summary = Trainer(run_of(preset, epochs=40, slice_size=12), tmp_path / "run").fit()
    assert summary["train_accuracy"] > 0.8
    assert summary["skipped_steps"] == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_resumes_bit_for_bit(preset, tmp_path):
    whole = Losses()
    reference = run_of(preset)
    Trainer(reference, tmp_path / "whole", callbacks=[whole]).fit()
    first, second = Losses(stop_after=6), Losses()
    with pytest.raises(Stop):
        Trainer(run_of(preset), tmp_path / "parts", callbacks=[first]).fit()
    resumed = run_of(preset)
    Trainer(resumed, tmp_path / "parts", callbacks=[second]).resume()
    assert first.losses + second.losses == whole.losses
    for name, tensor in reference.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


@pytest.mark.parametrize(("preset", "bytes_a_weight"), [("standard", 12), ("edge", 6), ("edge-min", 1)])
def test_keeps_so_many_bytes_a_weight_between_steps(preset, bytes_a_weight, tmp_path):
    run = run_of(preset, epochs=1)
    Trainer(run, tmp_path / "run").fit()
    stores = [layer.store for layer in run.model.modules() if isinstance(layer, BinaryLayer)]
    kept = 0
    for store in stores:
        state = run.optimizer.state.get(store.weight, {})
        tensors = [store.weight, *(value for value in state.values() if torch.is_tensor(value) and value.dim())]
        assert store.weight.grad is None
        kept += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert kept == bytes_a_weight * sum(store.size for store in stores)


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_activations_are_bits_from_norm_to_product(preset):
    step = prepare(preset, NETWORK, input_shape=INPUT)
    seen = []
    for module in step.model.modules():
        if isinstance(module, BinaryBlock):
            module.register_forward_hook(lambda _, __, output: seen.append(output))
    step.model(torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert [isinstance(output, BitTensor) for output in seen] == [True, True, False]  # the last norm gives logits


def test_seed_decides_the_weights():
    def signs(seed):
        return prepare("edge-min", NETWORK, input_shape=INPUT, seed=seed).model[1].product.store.read().dense()

    assert torch.equal(signs(1), signs(1))
    assert not torch.equal(signs(1), signs(2))


@pytest.mark.parametrize("preset", PRESETS)
def test_learning_rate_can_be_given(preset):
    assert prepare(preset, NETWORK, input_shape=INPUT, learning_rate=0.02).optimizer.param_groups[0]["lr"] == 0.02


def groups_of(preset):
    """The options of the accumulators, or latent weights, and those of the norms' parameters."""
    step = prepare(preset, NETWORK, input_shape=INPUT)
    stored = {id(module.trained) for module in step.model.modules() if isinstance(module, WeightStore)}
    found = {True: [], False: []}
    for group in step.optimizer.param_groups:
        for parameter in group["params"]:
            found[id(parameter) in stored].append({name: group[name] for name in group if name != "params"})
    for options in found.values():
        assert all(other == options[0] for other in options), "all weights, and all norms, are stepped alike"
    return step.optimizer, found[True][0], found[False][0]


# What the records of benchmarks/records.md have been trained with.


@pytest.mark.parametrize(
    ("preset", "weights", "norms"), [("standard", 1e-2, 1e-2), ("edge", 3e-3, 1e-2), ("edge-min", 2e-2, 1e-2)]
)
def test_learning_rates_of_weights_and_norms_are_those_of_the_records(preset, weights, norms):
    _, of_weights, of_norms = groups_of(preset)
    assert (of_weights["lr"], of_norms["lr"]) == (weights, norms)


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_the_rate_of_the_norms_does_not_follow_that_of_the_weights(preset):
    rates = {
        group["lr"] for group in prepare(preset, NETWORK, input_shape=INPUT, learning_rate=0.5).optimizer.param_groups
    }
    assert rates == {0.5, 1e-2}


def test_betas_are_those_of_the_records():
    adam = (0.9, 0.999)
    betas = {"standard": (adam, adam), "edge": (adam, adam), "edge-min": ((0.0, 0.0), adam)}
    for preset, expected in betas.items():
        optimizer, of_weights, of_norms = groups_of(preset)
        assert (of_weights["betas"], of_norms["betas"]) == expected
        assert type(optimizer).__name__ == "Adam"
        assert of_weights["eps"] == 1e-8


def test_hysteresis_is_20_learning_rates_of_edge_min_alone():
    assert [options["hysteresis_steps"] for options in groups_of("edge-min")[1:]] == [20.0, 0.0]
    assert [options["hysteresis_steps"] for options in groups_of("edge")[1:]] == [0.0, 0.0]


def test_accumulators_of_8_bits_begin_four_times_as_wide_as_those_of_16():
    def stores(preset):
        model = prepare(preset, NETWORK, input_shape=INPUT, seed=4).model
        return [module for module in model.modules() if isinstance(module, WeightStore)]

    for wide, narrow in zip(stores("edge-min"), stores("edge"), strict=True):
        assert (wide.trained.dtype, narrow.trained.dtype) == (torch.int8, torch.float16)
        expected = (4 * narrow.trained_value().float()).clamp(-1, 1)
        # Half a code of 1/128, and float16's own rounding.
        assert (wide.trained_value() - expected).abs().max() < 0.6 / 128


def test_only_the_latent_weights_of_standard_are_clipped_by_a_store():
    model = prepare("standard", NETWORK, input_shape=INPUT).model
    assert {module.limit for module in model.modules() if isinstance(module, WeightStore)} == {1.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("egde", "no preset 'egde', but there is 'edge'"),
        ("fast", "no preset 'fast'; there are: standard, edge, edge-min"),
    ],
)
def test_unknown_preset_is_refused_with_the_near_ones(name, message):
    with pytest.raises(RecipeError, match=message):
        prepare(name, NETWORK, input_shape=INPUT)


def test_only_large_images_are_cut_into_slices():
    def slice_size(network, input_shape):
        return prepare("edge-min", network, input_shape=input_shape).slice_size

    assert slice_size(binarynet, (3, 32, 32)) == 50
    assert slice_size(cnv, (3, 32, 32)) > 100
    assert slice_size(partial(mlp, hidden=(64,)), (1, 28, 28)) > 1000


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
@pytest.mark.parametrize("network", [resnet20, resnete18])
def test_residual_networks_take_a_step(preset, network):
    step = prepare(preset, partial(network, classes=4), input_shape=(3, 16, 16))
    store = next(module for module in step.model.modules() if isinstance(module, AccumulatorStore))
    before = store.weight.clone()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(step.model(images), torch.arange(4))
    step.optimizer.zero_grad()
    loss.backward()
    step.optimizer.step()
    assert loss.isfinite()
    assert not torch.equal(store.weight, before)


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_norms_outside_of_blocks_are_warned_of(preset):
    def chain(*, input_shape, store, norm):
        block = BinaryBlock(BinaryLinear(36, 8, store=store), norm(8))
        return nn.Sequential(nn.Flatten(), block, BinaryLinear(8, 4, store=store), norm(4))

    message = "^BinaryNorms outside of a fused BinaryBlock, which make training keep more: 1$"
    with pytest.warns(UserWarning, match=message) as caught:
        prepare(preset, chain, input_shape=INPUT)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_gradients_are_packed_signs_of_weights_and_integers_of_products(preset):
    step = prepare(preset, NETWORK, input_shape=INPUT)
    layers = [module for module in step.model.modules() if isinstance(module, BinaryLayer)]
    of_weights = {layer.store.gradient_quantizer.storage_bits for layer in layers}
    assert of_weights == {1}, "a bit is packed"
    assert all(layer.grad_quantizer.gives_integers and layer.grad_quantizer.largest == 127 for layer in layers)
    used = {layer.grad_quantizer.generator for layer in layers} | {
        layer.store.gradient_quantizer.generator for layer in layers
    }
    assert used == set(step.generators.values()), "checkpoints keep what roundings draw from"
