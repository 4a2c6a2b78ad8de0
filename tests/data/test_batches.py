from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.data import Batches, RandomCrop, RandomFlip, Split, hold_out
from bnn.data import batches as batches_module
from bnn.errors import DataError

MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)
AUGMENT = (RandomCrop(padding=2), RandomFlip())
MakeSplit = Callable[..., Split]


def make_batches(split: Split, **options: Any) -> Batches:
    return Batches(split, **{"batch_size": 8, "mean": MEAN, "std": STD, **options})


def whole_epoch(batches: Batches, epoch: int) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches.epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def numbered_split(n: int) -> Split:
    """A split whose labels are the positions of its examples."""
    return Split(images=torch.zeros(n, 3, 1, 1, dtype=torch.uint8), labels=torch.arange(n))


def test_images_are_normalised(make_split: MakeSplit) -> None:
    split = make_split(20)
    images, labels = whole_epoch(make_batches(split), 0)
    expected = (split.images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, expected)
    assert torch.equal(labels, split.labels)


@given(n=st.integers(0, 40), batch_size=st.integers(1, 45), shuffle=st.booleans())
def test_sizes_of_the_batches(n: int, batch_size: int, shuffle: bool) -> None:
    batches = make_batches(numbered_split(n), batch_size=batch_size, shuffle=shuffle)
    sizes = [len(labels) for _, labels in batches.epoch(0)]
    full, rest = divmod(n, batch_size)
    drop = shuffle and full > 0
    assert sizes == [batch_size] * full + ([rest] if rest and not drop else [])
    assert len(batches) == len(sizes)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    split = numbered_split(64)

    def order(seed: int, epoch: int) -> list[int]:
        return whole_epoch(make_batches(split, shuffle=True, seed=seed), epoch)[1].tolist()

    assert order(0, 0) == order(0, 0)
    assert sorted(order(0, 0)) == list(range(64))
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_order_and_augmentation_do_not_depend_on_the_batch_size(make_split: MakeSplit) -> None:
    split = make_split(60)
    streams = [
        whole_epoch(make_batches(split, shuffle=True, augment=AUGMENT, batch_size=size), 3) for size in (1, 4, 60)
    ]
    for images, labels in streams[1:]:
        assert torch.equal(images, streams[0][0])
        assert torch.equal(labels, streams[0][1])


def test_augmentation_follows_the_example_and_not_the_order(make_split: MakeSplit) -> None:
    split = Split(images=make_split(32).images, labels=torch.arange(32))
    kept, _ = whole_epoch(make_batches(split, augment=AUGMENT), 1)
    shuffled, labels = whole_epoch(make_batches(split, augment=AUGMENT, shuffle=True), 1)
    assert torch.equal(shuffled, kept[labels])


def test_augmentation_changes_with_seed_epoch_and_place_in_the_list(make_split: MakeSplit) -> None:
    split = make_split(32)

    def images(augment: Any, seed: int, epoch: int) -> Tensor:
        return whole_epoch(make_batches(split, augment=augment, seed=seed), epoch)[0]

    assert not torch.equal(images(AUGMENT, 0, 0), images(AUGMENT, 1, 0))
    assert not torch.equal(images(AUGMENT, 0, 0), images(AUGMENT, 0, 1))
    # Two flips with the same numbers would undo one another.
    assert not torch.equal(images((RandomFlip(), RandomFlip()), 0, 0), images((), 0, 0))


def numbers_drawn(*, seed: int, epoch: int, augmentations: int = 1) -> list[Tensor]:
    """What each augmentation of a list draws for 5000 examples, in the order of the split: double [5000] each."""
    drawn: list[Tensor] = []

    def note(images: Tensor, random: Tensor) -> Tensor:
        drawn.append(random.double())
        return images

    whole_epoch(make_batches(numbered_split(5000), batch_size=5000, seed=seed, augment=[note] * augmentations), epoch)
    return drawn


def test_augmentations_epochs_and_seeds_draw_independent_numbers() -> None:
    drawn = numbers_drawn(seed=0, epoch=0, augmentations=3)
    drawn += numbers_drawn(seed=0, epoch=1) + numbers_drawn(seed=1, epoch=0) + numbers_drawn(seed=1, epoch=1)
    correlations = torch.corrcoef(torch.stack(drawn)) - torch.eye(6)
    assert correlations.abs().max() < 4.5 / 5000**0.5


def test_pixels_become_the_same_input_a_few_at_a_time(make_split: MakeSplit) -> None:
    batches = make_batches(make_split(20), shuffle=True, augment=AUGMENT)
    for (x, labels), (pixels, same_labels) in zip(batches.epoch(1), batches.epoch(1, normalize=False), strict=True):
        assert pixels.dtype == torch.uint8
        assert torch.equal(torch.cat([batches.normalized(part) for part in torch.split(pixels, 3)]), x)
        assert torch.equal(labels, same_labels)


@pytest.mark.parametrize("count", [2, 3])
def test_augmentations_of_one_kind_act_independently(count: int) -> None:
    # One pixel at the left; flips that went together would bring it back, or leave none where it was.
    images = torch.zeros(2000, 3, 1, 2, dtype=torch.uint8)
    images[..., 0] = 255
    split = Split(images=images, labels=torch.arange(2000))
    flipped, _ = whole_epoch(make_batches(split, augment=[RandomFlip()] * count), 0)
    once, _ = whole_epoch(make_batches(split, augment=[RandomFlip()]), 0)
    assert (flipped[:, 0, 0, 0] < 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (flipped == once).double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_order_has_nothing_to_do_with_augmentation_and_with_other_epochs_and_seeds() -> None:
    def place(seed: int, epoch: int) -> Tensor:
        """Of each example in the order, double [5000]."""
        batches = make_batches(numbered_split(5000), batch_size=5000, seed=seed, shuffle=True)
        return whole_epoch(batches, epoch)[1].argsort().double()

    places = [place(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    ranks = [x.argsort().argsort().double() for x in numbers_drawn(seed=0, epoch=0, augmentations=2)]
    correlations = torch.corrcoef(torch.stack(places + ranks)) - torch.eye(6)
    assert correlations.abs().max() < 4.5 / 5000**0.5


def test_the_order_of_an_epoch_has_nothing_to_do_with_what_is_held_out() -> None:
    _, held = hold_out(numbered_split(5000), fraction=0.5, seed=0)
    _, labels = whole_epoch(make_batches(numbered_split(5000), batch_size=5000, seed=0, shuffle=True), 0)
    assert held.rows is not None
    both = len({*labels[:2500].tolist()} & {*held.rows.tolist()})
    assert both == pytest.approx(1250, abs=80)  # 4.5 standard deviations


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("first_batch", [0, 1, 3, 5])
def test_an_epoch_resumes_exactly(make_split: MakeSplit, shuffle: bool, first_batch: int) -> None:
    options: dict[str, Any] = {"shuffle": shuffle, "augment": AUGMENT, "seed": 7}
    whole = list(make_batches(make_split(40), **options).epoch(2))
    resumed = list(make_batches(make_split(40), **options).epoch(2, first_batch=first_batch))
    assert len(resumed) == 5 - first_batch
    for (images, labels), (resumed_images, resumed_labels) in zip(whole[first_batch:], resumed, strict=True):
        assert torch.equal(images, resumed_images)
        assert torch.equal(labels, resumed_labels)


def test_a_held_out_part_gives_its_own_images(make_split: MakeSplit) -> None:
    split = make_split(40)
    _, held = hold_out(split, fraction=0.25, seed=0)
    images, labels = whole_epoch(make_batches(held), 0)
    all_images, all_labels = whole_epoch(make_batches(split), 0)
    assert torch.equal(images, all_images[held.rows])
    assert torch.equal(labels, all_labels[held.rows])


@pytest.mark.parametrize("kept_on_device", [True, False])
def test_batches_arrive_on_the_device(
    make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch, kept_on_device: bool
) -> None:
    split, _ = hold_out(make_split(50), fraction=0.2, seed=0)
    image_bytes = 40 * 3 * 8 * 8
    monkeypatch.setattr(batches_module, "_ON_DEVICE_BYTES", image_bytes if kept_on_device else image_bytes - 1)
    # The meta device has shapes and no values, and exists everywhere.
    batches = make_batches(split, device="meta", shuffle=True, augment=AUGMENT)
    assert (batches._split.images.device.type == "meta") == kept_on_device
    for images, labels in batches.epoch(0):
        assert images.device.type == labels.device.type == "meta"
        assert images.shape == (8, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_same_stream(make_split: MakeSplit) -> None:
    _, held = hold_out(make_split(80), fraction=0.5, seed=0)
    streams = [
        whole_epoch(make_batches(held, shuffle=True, augment=AUGMENT, device=device), 1) for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(streams[1][0].cpu(), streams[0][0])
    assert torch.equal(streams[1][1].cpu(), streams[0][1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be in 0.*, got -1"),
        ({"seed": 2**63}, "seed must be in 0"),
        ({"mean": (0.5,)}, "each of the images' 3 channels"),
        ({"std": (0.5, 0.5)}, "each of the images' 3 channels"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be positive"),
        ({"std": (0.5, float("nan"), 0.5)}, "std must be positive"),
    ],
)
def test_options_are_checked(make_split: MakeSplit, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_batches(make_split(4), **options)


def test_epoch_and_first_batch_are_checked_at_once(make_split: MakeSplit) -> None:
    batches = make_batches(make_split(20))
    with pytest.raises(DataError, match="epoch must be at least 0, got -1"):
        batches.epoch(-1)
    for first_batch in (-1, 4):
        with pytest.raises(DataError, match=rf"in 0\.\.3, got {first_batch}"):
            batches.epoch(0, first_batch=first_batch)
