import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn.codec import save
from bnn.codec.commands import _describe
from bnn.codec.model import read_within
from bnn.errors import Interrupted, RecipeError
from bnn.layers import BinaryLinear
from bnn.methods import Compressibility, PenalizedLoss, PenaltySchedule, Ternarize, Transposable
from bnn.methods.ternarize import keep_largest
from bnn.training import Callback, Run, Trainer, trapezoid
from bnn.training.directory import read_metrics
from bnn.weights import SparseStore
from tests.contracts import randn
from tests.training.tiny_runs import SignalAt, assert_same_state, tiny_dataset, training_state

EPOCHS = 4


def sparse_run(
    *,
    density: float | None = 0.25,
    pattern: Transposable | None = None,
    epoch: int = 2,
    final_epoch: int | None = None,
    **options,
) -> Run:
    model = nn.Sequential(
        nn.Flatten(),
        BinaryLinear(36, 20, store=SparseStore, input_quantizer=None),
        nn.BatchNorm1d(20),
        nn.ReLU(),
        BinaryLinear(20, 4, store=SparseStore, input_quantizer=None),
    )
    generator = torch.Generator().manual_seed(1)
    for layer in (model[1], model[4]):
        layer.store.initialize(generator)
    loss = PenalizedLoss(model, Compressibility())
    return Run(
        model=model,
        data=tiny_dataset(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        epochs=EPOCHS,
        batch_size=12,
        seed=3,
        validation=0.2,
        loss=loss,
        callbacks=[
            PenaltySchedule(loss, trapezoid(2, peak=0.01, fall_epochs=1)),
            Ternarize(epoch=epoch, density=density, pattern=pattern, final_epoch=final_epoch),
        ],
        **options,
    )


@given(
    st.integers(0, 2**31),
    st.floats(0.001, 1),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
)
def test_keeps_the_asked_share_and_nothing_smaller_than_what_it_drops(seed, density, shapes):
    weights = [randn(*shape, seed=seed + i) * 10.0**i for i, shape in enumerate(shapes)]
    kept = keep_largest(weights, density=density)
    assert [mask.shape for mask in kept] == [w.shape for w in weights]
    number = sum(w.numel() for w in weights)
    assert sum(int(mask.sum()) for mask in kept) == max(1, round(density * number))
    inside, outside = [], []
    for w, mask in zip(weights, kept, strict=True):
        for magnitude, is_kept in zip(w.flatten(), mask.flatten(), strict=True):
            not_smaller = w[w.abs() >= magnitude.abs()]
            (inside if is_kept else outside).append(float(magnitude.square() / not_smaller.square().sum()))
    assert not outside or min(inside) >= max(outside) * (1 - 1e-5)


def test_the_score_by_hand():
    """4/4, 1/5 and 1/6 in one layer, 9/9, 9/18 in the other, whose scale is another."""
    weights = [torch.tensor([1.0, -2.0, 1.0]), torch.tensor([[300.0], [-300.0]])]
    assert [mask.sum().item() for mask in keep_largest(weights, density=0.4)] == [1, 1]
    assert [mask.sum().item() for mask in keep_largest(weights, density=0.6)] == [1, 2]
    assert [mask.sum().item() for mask in keep_largest(weights, density=0.8)] == [2, 2]


def test_small_layers_keep_a_larger_share_and_every_layer_something():
    weights = [randn(10, 10, seed=1), randn(100, 100, seed=2)]
    small, large = (mask.float().mean().item() for mask in keep_largest(weights, density=0.1))
    assert small > 2 * large
    assert [mask.sum().item() for mask in keep_largest(weights, density=2 / 10_100)] == [1, 1]


def test_the_scale_of_a_layer_does_not_matter_and_a_zero_layer_is_emptied():
    weights = [randn(20, 10, seed=1), randn(20, 10, seed=2)]
    masks = keep_largest(weights, density=0.3)
    scaled = keep_largest([1e-3 * weights[0], 1e3 * weights[1]], density=0.3)
    assert all(torch.equal(a, b) for a, b in zip(masks, scaled, strict=True))
    assert not keep_largest([torch.zeros(5, 5), weights[0]], density=0.3)[0].any()


def test_weights_are_real_first_and_ternary_with_fixed_zeros_then(tmp_path):
    run = sparse_run()
    Trainer(run, tmp_path / "run").fit()
    records = read_metrics(tmp_path / "run")
    assert [record["sparsity"] for record in records] == [0, 0, 0.75, 0.75]
    stores = [run.model[1].store, run.model[4].store]
    for store in stores:
        assert store.is_ternary
        levels = store.read().unique()
        assert len(levels) == 3
        assert levels[1] == 0
        assert levels[0] == -levels[2]
    assert sum(int(store.kept.sum()) for store in stores) == round(0.25 * 800)


def test_zeros_stay_and_the_rest_is_tuned(tmp_path):
    short = sparse_run()
    short.epochs = 3
    Trainer(short, tmp_path / "short").fit()
    long = sparse_run()
    Trainer(long, tmp_path / "long").fit()
    one, other = short.model[1].store, long.model[1].store
    assert torch.equal(one.kept, other.kept)
    assert not torch.equal(one.weight[one.kept], other.weight[one.kept])


def test_a_density_of_one_makes_a_binary_network(tmp_path):
    run = sparse_run(density=1.0, epoch=0)
    Trainer(run, tmp_path / "run").fit()
    assert len(run.model[1].store.read().unique()) == 2
    assert read_metrics(tmp_path / "run")[-1]["sparsity"] == 0


class Choices(Callback):
    """What each layer keeps, and its real weights, after each step with ternary weights."""

    def __init__(self) -> None:
        self.by_step: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        stores = [trainer.run.model[place].store for place in (1, 4)]
        if stores[0].is_ternary:
            self.by_step[trainer.step] = [(store.kept.clone(), store.weight.detach().clone()) for store in stores]


def test_the_largest_of_each_layer_are_chosen_every_16_steps_until_the_choice_is_final(tmp_path):
    run, choices = sparse_run(epoch=1, final_epoch=9), Choices()
    run.epochs = 12
    run.optimizer.param_groups[0]["lr"] = 0.3
    Trainer(run, tmp_path / "run", callbacks=[choices]).fit()
    # Four steps an epoch: the weights are ternary from step 5, and final from step 37.
    changed = [
        step
        for step in range(6, 49)
        if any(
            not torch.equal(a, b)
            for (a, _), (b, _) in zip(*(choices.by_step[i] for i in (step - 1, step)), strict=True)
        )
    ]
    assert changed == [16, 32]
    for step in changed:
        for (kept, weight), (before, _) in zip(choices.by_step[step], choices.by_step[5], strict=True):
            assert kept.sum() == before.sum()
            assert weight[kept].abs().min() >= weight[~kept].abs().max()


@pytest.mark.parametrize(
    "moment",
    [("step ends", 1, 2), ("epoch ends", 1, 4), ("epoch begins", 2, 0), ("step ends", 2, 1), ("epoch ends", 3, 4)],
)
def test_an_interrupted_run_goes_on_bit_for_bit(moment, tmp_path):
    def run() -> Run:
        run = sparse_run(final_epoch=5)
        run.epochs = 6
        return run

    whole, resumed = run(), run()
    Trainer(whole, tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        Trainer(run(), tmp_path / "parts", callbacks=[SignalAt(moment)]).fit()
    Trainer(resumed, tmp_path / "parts").resume()
    assert_same_state(training_state(whole), training_state(resumed))


def test_bits_of_a_random_ternary_weight_are_those_of_its_density(tmp_path):
    """h2(rho) + rho bits a weight: 0.3364 at 5 %, 95 times less than 32."""
    store = SparseStore((500, 800))
    store.initialize(torch.Generator().manual_seed(5))
    (kept,) = keep_largest([store.weight.detach()], density=0.05)
    store.ternarize_(kept)
    model = nn.Module()
    model.store = store
    save(model, tmp_path / "m.bnnz")
    described = _describe(tmp_path / "m.bnnz", read_within(tmp_path / "m.bnnz", math.inf))
    assert described["entropy_bits_per_weight"] == pytest.approx(0.3364, abs=0.0005)
    assert 32 / described["entropy_bits_per_weight"] == pytest.approx(95, abs=0.2)
    assert described["bits_per_weight"] == pytest.approx(0.3364, rel=0.03)


@pytest.mark.parametrize(
    "options",
    [{"epoch": -1, "density": 0.5}, {"epoch": 0, "density": 0.0}, {"epoch": 3, "final_epoch": 2}],
)
def test_options_out_of_their_range_are_refused(options):
    with pytest.raises(RecipeError, match=r"epoch at which|share of weights|cannot be final in epoch 2"):
        Ternarize(**{"epoch": 0, "density": 0.5} | options)
    with pytest.raises(RecipeError, match=r"lies in \(0, 1\], got nan"):
        Ternarize(epoch=0, density=math.nan)


@pytest.mark.parametrize(
    ("epoch", "step", "anew"), [(1, 16, False), (2, 16, True), (2, 15, False), (3, 32, True), (4, 48, False)]
)
def test_weights_are_chosen_anew_every_16_steps_from_the_epoch_to_the_final_one(epoch, step, anew):
    layer = BinaryLinear(6, 1, store=SparseStore)
    kept = torch.tensor([[True, True, False, False, False, False]])
    layer.store.ternarize_(kept)
    with torch.no_grad():
        layer.store.weight.copy_(torch.arange(6.0).view(1, 6))
    trainer = SimpleNamespace(epoch=epoch, step=step, run=SimpleNamespace(model=layer))
    Ternarize(epoch=2, density=1 / 3, final_epoch=4).on_step_end(trainer, 0.0)
    assert torch.equal(layer.store.kept, kept.flip(1) if anew else kept)
