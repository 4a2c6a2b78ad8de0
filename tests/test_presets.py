"""Each preset trains, resumes exactly and keeps between steps what it promises."""

import math
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from bnn import presets
from bnn.bits import BitTensor
from bnn.errors import RecipeError
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLayer, BinaryLinear, L1BatchNorm
from bnn.models import binarynet, cnv, mlp, resnet8
from bnn.models.zoo import binary_resnet_e18, xnornet
from bnn.ops.cpu import native
from bnn.presets import edge, prepare
from bnn.quantizers import ReCU, Sign, Ternary
from bnn.training import Callback, Run, Trainer, warmup_cosine
from bnn.weights import DiscreteStore, LatentStore, WeightStore, is_accumulator, named_stores
from tests.contracts import randn
from tests.training.tiny_runs import tiny_dataset

PRESETS = ("standard", "edge", "edge-min")
INPUT = (1, 6, 6)
NETWORK = partial(mlp, input_shape=INPUT, classes=4, hidden=(64, 64))


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
    summary = Trainer(run_of(preset, epochs=20, slice_size=12), tmp_path / "run").fit()
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


@pytest.mark.parametrize(
    ("preset", "bytes_a_weight", "bytes_a_row"),
    [("standard", 12, 0), ("edge", 6, 0), ("edge-min", 1, 4), ("edge-fast", 1, 4), ("edge-signs", 1, 0)],
)
def test_keeps_so_many_bytes_a_weight_between_steps(preset, bytes_a_weight, bytes_a_row, tmp_path):
    run = run_of(preset, epochs=1)
    Trainer(run, tmp_path / "run").fit()
    stores = [layer.store for layer in run.model.modules() if isinstance(layer, BinaryLayer)]
    kept = 0
    for store in stores:
        state = run.optimizer.state.get(store.weight, {})
        tensors = [store.weight, *(value for value in state.values() if torch.is_tensor(value) and value.dim())]
        assert store.weight.grad is None
        kept += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert kept == sum(bytes_a_weight * store.size + bytes_a_row * store.shape[0] for store in stores)


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


# What the records of benchmarks/records have been trained with.


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
    betas = {"standard": (adam, adam), "edge": (adam, adam), "edge-min": ((0.0, 0.999), adam)}
    betas["edge-signs"] = ((0.0, 0.0), adam)
    for preset, expected in betas.items():
        optimizer, of_weights, of_norms = groups_of(preset)
        assert (of_weights["betas"], of_norms["betas"]) == expected
        assert type(optimizer).__name__ == "Adam"
        assert of_weights["eps"] == {"edge": 2.0**-24, "edge-min": 1e-20}.get(preset, 1e-8)
        assert of_norms["eps"] == 1e-8


def test_hysteresis_is_20_learning_rates_of_edge_min_alone():
    for preset in ("edge-min", "edge-fast", "edge-signs"):
        assert [options["hysteresis_steps"] for options in groups_of(preset)[1:]] == [20.0, 0.0]
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
        ("quick", "no preset 'quick'; there are: standard, edge, edge-min, edge-fast, edge-signs"),
    ],
)
def test_unknown_preset_is_refused_with_the_near_ones(name, message):
    with pytest.raises(RecipeError, match=message):
        prepare(name, NETWORK, input_shape=INPUT)


@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_a_rate_that_no_optimizer_takes_is_refused(rate):
    with pytest.raises(RecipeError, match="the learning rate is finite and at least 0, got"):
        prepare("edge-min", NETWORK, input_shape=INPUT, learning_rate=rate)


@pytest.mark.parametrize("is_limited", [True, False])
def test_standard_gives_back_what_it_frees_where_memory_is_limited(monkeypatch, is_limited):
    called = []
    monkeypatch.setattr(presets, "memory_is_limited", lambda: is_limited)
    monkeypatch.setattr(presets, "give_back_freed_memory", lambda: called.append(True))
    prepare("standard", NETWORK, input_shape=INPUT)
    assert called == [True] * is_limited


def test_only_large_images_are_cut_into_slices():
    def slice_size(network, input_shape):
        return prepare("edge-min", network, input_shape=input_shape).slice_size

    assert slice_size(binarynet, (3, 32, 32)) == 43
    # Backward never has the whole product of a stem of 7x7, and has that of one of 11x11.
    assert slice_size(binary_resnet_e18, (3, 224, 224)) == 16
    with pytest.warns(UserWarning, match="keeps floats"):
        assert slice_size(xnornet, (3, 224, 224)) == 18
    assert slice_size(cnv, (3, 32, 32)) > 64
    assert slice_size(partial(mlp, input_shape=(1, 28, 28), hidden=(64,)), (1, 28, 28)) > 1000


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_every_instruction_set_takes_the_same_steps(preset, monkeypatch):
    extension = pytest.importorskip("bnn._native", reason="the native kernels are not built")
    states = []
    for name in extension.instruction_sets():
        monkeypatch.setattr(native, "_instruction_set", name)
        shape = (3, 16, 16)
        step = prepare(preset, partial(resnet8, input_shape=shape, classes=3, width=12), input_shape=shape)
        step.slice_size = 5
        for seed in range(2):
            assert step.take(randn(8, *shape, seed=seed), torch.arange(8) % 3) is not None
        states.append(step.model.state_dict())
    for other in states[1:]:
        for name, value in states[0].items():
            assert torch.equal(other[name], value), name


class Residual(nn.Module):
    """Blocks, shortcuts and layers of torch in a class of the user's."""

    def __init__(self, *, bias=False):
        super().__init__()
        self.stem = BinaryBlock(nn.Conv2d(1, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8), activation=nn.Hardtanh())
        self.first, self.second = (
            BinaryBlock(BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), activation=nn.Hardtanh()) for _ in range(2)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        x = self.second(self.first(x, x), x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_of_ones_own_learns(preset):
    step = prepare(preset, Residual, input_shape=INPUT)
    data = tiny_dataset()
    images, labels = data.train.images.float() / 128 - 1, data.train.labels
    losses = [step.take(images, labels).loss for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    blocks = [module for module in step.model.modules() if isinstance(module, BinaryBlock)]
    assert [block.is_fused for block in blocks] == [preset != "standard"] * 3


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_a_network_that_is_ready_is_taken_over(preset):
    ready = Residual()
    step = prepare(preset, lambda: ready, input_shape=INPUT)
    assert step.model is ready
    stores = [module for module in ready.modules() if isinstance(module, WeightStore)]
    assert all(is_accumulator(store.trained) for store in stores)
    assert step.take(randn(6, *INPUT), torch.arange(6) % 4) is not None


@pytest.mark.parametrize("preset", ["edge", "edge-min"])
def test_what_keeps_more_is_named_once_with_the_reason(preset):
    def chain():
        block = BinaryBlock(BinaryLinear(36, 8), L1BatchNorm(8))
        return nn.Sequential(nn.Flatten(), block, BinaryLinear(8, 4), nn.BatchNorm1d(4))

    with pytest.warns(UserWarning, match="keeps floats") as caught:
        prepare(preset, chain, input_shape=INPUT)
    assert [str(warning.message) for warning in caught] == [
        "1 keeps floats: its norm is a L1BatchNorm, not torch's batch norm; "
        "2 is outside of a BinaryBlock, and what follows it keeps floats"
    ]
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="^stem keeps floats: its product has a bias, which the norm takes away"):
        prepare(preset, partial(Residual, bias=True), input_shape=INPUT)


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_is_warned_of_where_all_is_kept_in_bits(preset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(preset, Residual, input_shape=INPUT)
        prepare(preset, NETWORK, input_shape=INPUT)


@pytest.mark.parametrize("network", [NETWORK, Residual])
def test_a_step_in_backward_by_real_gradients_is_that_of_the_kept_gradients(network):
    """Adam of float32, whose moments are rounded to float16, from the gradients of a layer that keeps them."""
    inside, after = (prepare("edge", network, input_shape=INPUT) for _ in range(2))
    for parameter in after.model.parameters():
        if is_accumulator(parameter):
            parameter._hooks.clear()
    for _ in range(3):
        for step in (inside, after):
            step.take(randn(8, *INPUT), torch.arange(8) % 3)
    for name, value in inside.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], value), name


def test_accumulators_in_bounds_have_less_hysteresis():
    store = partial(LatentStore, quantizer=ReCU(tail="project"))
    plain, bounded = (
        prepare("edge-min", partial(mlp, input_shape=INPUT, classes=4, hidden=(16,), store=store), input_shape=INPUT)
        for store in (None, store)
    )
    assert [group.get("hysteresis_steps") for group in plain.optimizer.param_groups] == [20.0, 0.0]
    assert [group.get("hysteresis_steps") for group in bounded.optimizer.param_groups] == [10.0, 0.0]


@pytest.mark.filterwarnings("ignore:0 is outside of a BinaryBlock")
@pytest.mark.parametrize("preset", ["standard", "edge-min"])
def test_weights_that_are_programmed_are_refused(preset):
    def build():
        return nn.Sequential(BinaryLinear(8, 4, store=DiscreteStore))

    with pytest.raises(RecipeError, match=r"the weight of 0 is programmed level by level .DiscreteStore.*DST"):
        prepare(preset, build, input_shape=(8,))


@pytest.mark.filterwarnings("ignore:0 is outside of a BinaryBlock")
def test_no_float_of_a_weight_is_made_that_accumulators_replace(monkeypatch):
    drawn = []
    initialize = LatentStore.initialize
    monkeypatch.setattr(LatentStore, "initialize", lambda store, *a: (drawn.append(store.shape), initialize(store, *a)))

    def build():
        stores = [partial(LatentStore, quantizer=quantizer) for quantizer in (Sign(window=2.0), ReCU(), Ternary())]
        return nn.Sequential(*(BinaryLinear(8, 8, store=store) for store in stores))

    step = prepare("edge-min", build, input_shape=(8,))
    assert [is_accumulator(store.trained) for _, store in named_stores(step.model)] == [True, True, False]
    assert drawn == [(8, 8), (8, 8)]  # the ternary one, as it is made and as it is drawn anew


def test_edge_keeps_the_state_of_norms_in_float32():
    optimizer = edge(mlp, (1, 28, 28)).optimizer
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    dtypes = {state["exp_avg"].dtype: is_accumulator(parameter) for parameter, state in optimizer.state.items()}
    assert dtypes == {torch.float16: True, torch.float32: False}
