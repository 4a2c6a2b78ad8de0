"""Samples of earlier classes as bits: which stay, what a step makes of them, their file, and a run that is resumed."""

import json
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn.bits import BitTensor
from bnn.cost.memory.of_run import predict_run
from bnn.data import Split
from bnn.errors import CheckpointError, DistributedError, Interrupted, RecipeError
from bnn.layers import Graph
from bnn.models import initialize, resnet8
from bnn.models.freezing import freeze
from bnn.presets import prepare
from bnn.training import Run, Trainer
from bnn.training.replay import (
    FILE,
    KeepReplay,
    Replay,
    fill,
    frozen_digest,
    load,
    row_bytes_of,
    save,
    upto_of,
    with_earlier_classes,
)
from tests.training.tiny_runs import SignalAt, assert_same_state, tiny_dataset, training_state

SHAPE = (1, 8, 8)
NAMES = ("a", "b", "c", "d")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reservoir(samples: int, classes: int = 3, *, row_bytes: int = 2, network: str = "") -> Replay:
    return Replay(
        samples, row_bytes, NAMES[:classes], upto="1", mean=(0.4,), std=(0.2,), network=network, generator=generator()
    )


def network(classes: int = 4) -> Graph:
    model = resnet8(input_shape=SHAPE, classes=classes, width=8)
    initialize(model, generator=generator())
    return freeze(model, "1", input_shape=SHAPE, hands_on_bits=True)


def filled(classes: int = 3, samples: int = 12) -> Replay:
    """Of the first classes of the tiny data set, behind the frozen part of `network`."""
    model, data = network(), tiny_dataset(size=8)
    kept = reservoir(samples, classes, row_bytes=row_bytes_of(model, SHAPE), network=frozen_digest(model))
    rows = (data.train.labels < classes).nonzero().flatten()
    fill(kept, model, Split(images=data.train.images, labels=data.train.labels[rows], rows=rows))
    return kept


def run(preset: str = "edge-min", kept: Replay | None = None) -> Run:
    """A training of all classes' pictures beside samples of three of them."""
    kept = kept or filled()
    step = prepare(preset, network, input_shape=SHAPE, keep_weights=True)
    data = tiny_dataset(size=8)
    assert kept.prepare(step.model, 4, batch_size=24, source="a file") == 6
    given = {"replay": kept, "generators": {**step.generators, "replay": kept.generator}}
    return Run(
        **vars(step) | given, data=data, epochs=2, batch_size=6, seed=1, validation=0.0, callbacks=[KeepReplay()]
    )


@given(st.lists(st.integers(0, 2), min_size=30, max_size=120), st.integers(3, 20))
@settings(max_examples=30, deadline=None)
def test_classes_share_the_room_as_equally_as_they_come(labels, samples):
    kept, come = reservoir(samples), torch.tensor(labels)
    kept.offer(torch.stack((come, torch.arange(len(come)) % 256), 1).to(torch.uint8), come)
    counts, of_each = kept.labels.bincount(minlength=3), come.bincount(minlength=3)
    assert torch.equal(kept.rows[:, 0].long(), kept.labels.long()), "a sample keeps its label"
    assert torch.equal(kept.seen, of_each)
    assert len(kept) == samples
    # Whoever has more than another has taken all that came of the other, or one more than its share.
    for k in range(3):
        assert all(counts[j] >= counts[k] - 1 or counts[j] == of_each[j] for j in range(3))


def test_what_stays_of_a_class_is_a_fair_part_of_it():
    ages = torch.zeros(100)
    for seed in range(60):
        kept = Replay(10, 1, ("a",), upto="1", mean=(0.0,), std=(1.0,), network="", generator=generator(seed))
        kept.offer(torch.arange(100, dtype=torch.uint8)[:, None], torch.zeros(100, dtype=torch.int64))
        ages[kept.rows.flatten().long()] += 1
    early, late = ages[:50].sum() / 600, ages[50:].sum() / 600
    assert 0.42 < early < 0.58, (early, late)


def test_a_class_without_room_is_one_line():
    with pytest.raises(RecipeError, match="3 classes take at least 3 samples of 4 bytes: there is room for 2"):
        reservoir(2)
    with pytest.raises(RecipeError, match="3 samples are fewer than the classes"):
        reservoir(3).add_classes(("d",))


@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
def test_a_step_with_samples_is_one_on_the_pictures_that_they_are_of(preset):
    """In one slice and with every sample drawn once, the losses are the same."""
    data = tiny_dataset(size=8)
    x = data.preprocessing.normalized(data.train.images[:8])
    losses = []
    for replayed in (False, True):
        step = prepare(preset, network, input_shape=SHAPE, keep_weights=True)
        step.model.train()
        rows = step.model.frozen_part(x).packed[4:] if replayed else None
        logits, loss = step.forward(x[:4] if replayed else x, data.train.labels[:8], rows)
        losses.append((logits.detach(), loss.item()))
    assert torch.equal(losses[0][0], losses[1][0])
    assert losses[0][1] == losses[1][1]


def test_a_step_learns_what_is_replayed_and_counts_it():
    tuned = run()
    before = [len(part[1]) for part in tuned.replay.drawn(5)]
    assert before == [4, 4, 4, 3, 3]
    x = tuned.data.preprocessing.normalized(tuned.data.train.images[:6])
    tuned.model.train()
    result = tuned.take(x, tuned.data.train.labels[:6])
    assert result.examples == 24
    only = [tuned.replay.drawn(1)[0][1] for _ in range(20)]
    assert torch.cat(only).unique().tolist() == [0, 1, 2]


def test_what_is_kept_is_what_the_network_makes_of_the_pictures():
    model, data, kept = network(), tiny_dataset(size=8), filled()
    x = data.preprocessing.normalized(data.train.images)
    made = model.eval().frozen_part(x)
    assert isinstance(made, BitTensor)
    for row, label in zip(kept.rows, kept.labels, strict=True):
        same = (made.packed == row).all(dim=1)
        assert label in data.train.labels[same]


def test_the_samples_are_in_the_prediction_and_what_is_frozen_costs_no_state():
    tuned, whole = (
        run(),
        prepare("edge-min", partial(resnet8, input_shape=SHAPE, classes=4, width=8), input_shape=SHAPE),
    )
    variables = predict_run(tuned).table.variables
    assert sum(v.bytes for v in variables if v.name == "samples to replay") == tuned.replay.nbytes
    assert sum(p.numel() for g in tuned.optimizer.param_groups for p in g["params"]) < sum(
        p.numel() for g in whole.optimizer.param_groups for p in g["params"]
    )


def test_a_run_that_is_resumed_ends_as_one_that_was_not(tmp_path):
    whole, parts = run(), run()
    Trainer(whole, tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        Trainer(parts, tmp_path / "parts", callbacks=[SignalAt(("step ends", 1, 3))]).fit()
    other = filled()
    other.rows.zero_()  # the samples of the checkpoint count, whatever has become of the file
    again = run(kept=other)
    Trainer(again, tmp_path / "parts").resume()
    assert_same_state(training_state(whole), training_state(again))
    assert (tmp_path / "whole" / FILE).read_bytes() == (tmp_path / "parts" / FILE).read_bytes()
    kept = load(tmp_path / "whole" / FILE, generator=generator())
    assert kept.classes == ("a", "b", "c", "d")
    assert kept.labels.bincount().tolist() == [3, 3, 3, 3]


def test_a_file_gives_back_what_it_was_made_of(tmp_path):
    kept = filled()
    save(kept, tmp_path / "file")
    again = load(tmp_path / "file", generator=generator())
    for name, tensor in kept.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert (again.classes, again.upto, again.mean, again.std) == (kept.classes, kept.upto, kept.mean, kept.std)


def damaged(path: Path, **changes) -> Path:
    """A file as `save` writes it, with other tensors or facts."""
    kept = filled()
    about = {"classes": kept.classes, "upto": "1", "network": "", "mean": [0.4], "std": [0.2]}
    tensors = kept.state_dict() | {name: x for name, x in changes.items() if isinstance(x, torch.Tensor)}
    about |= {name: x for name, x in changes.items() if not isinstance(x, torch.Tensor)}
    path.write_bytes(safetensors.torch.save(tensors, {"bnn-replay-1": json.dumps(about)}))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": "abc"},
        {"classes": ["a", "a", "b"]},
        {"classes": list("abcd")},
        {"std": [0.0]},
        {"mean": [0.1, 0.2]},
        {"mean": ["x"]},
        {"labels": torch.full((12,), 9, dtype=torch.int16)},
        {"labels": torch.full((12,), -2, dtype=torch.int16)},
        {"labels": torch.zeros(12, dtype=torch.int16)},
        {"rows": torch.zeros(12, dtype=torch.uint8)},
        {"rows": torch.zeros(12, 16)},
        {"seen": torch.full((3,), -1)},
        {"more": torch.zeros(1)},
    ],
    ids=str,
)
def test_what_is_no_file_of_samples_is_one_line(changes, tmp_path):
    with pytest.raises(CheckpointError, match=r"is no file of samples to replay .*: make one by `bnn replay RUN`"):
        load(damaged(tmp_path / "file", **changes), generator=generator())


def test_a_missing_file_and_other_bytes_are_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        load(tmp_path / "gone", generator=generator())
    (tmp_path / "text").write_text("no samples")
    with pytest.raises(CheckpointError, match="no file of samples"):
        load(tmp_path / "text", generator=generator())


def test_samples_of_another_network_or_cut_are_refused():
    kept, step = filled(), prepare("edge-min", network, input_shape=SHAPE, keep_weights=True)
    step.model.get_submodule("0.norm").running_mean.add_(1)
    with pytest.raises(CheckpointError, match="the layers up to 1 have other weights"):
        kept.prepare(step.model, 4, batch_size=24, source="a file")
    with pytest.raises(RecipeError, match="leave out --freeze 2"):
        upto_of(kept, "2")
    with pytest.raises(RecipeError, match="a batch of 1 has no room"):
        filled().prepare(network(), 4, batch_size=1, source="a file")


def test_data_get_the_classes_of_the_samples_before_their_own():
    joint = with_earlier_classes(tiny_dataset(classes=2), reservoir(9, 3))
    assert joint.classes == ("a", "b", "c")
    kept = reservoir(9, 3)
    kept.classes = ("x", "b", "y")
    joint = with_earlier_classes(tiny_dataset(classes=2), kept)
    assert joint.classes == ("x", "b", "y", "a")
    assert joint.train.labels[:4].tolist() == [3, 1, 3, 1]


def test_several_processes_cannot_replay():
    tuned = run()
    tuned.exchange = object()
    with pytest.raises(DistributedError, match="several processes cannot replay"):
        tuned.take(torch.zeros(2, *SHAPE), torch.zeros(2, dtype=torch.int64))
