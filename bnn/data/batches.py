"""`Batches`: shuffled, augmented and normalised batches, without worker processes."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import torch
from torch import Tensor

from bnn.data.arrays import Split
from bnn.data.augment import Augmentation
from bnn.data.preprocessing import normalized, scale_and_shift
from bnn.data.threads import reading_threads
from bnn.errors import DataError
from bnn.random.streams import augmentation_numbers, epoch_order

# Up to this size a split's pixels are copied to an accelerator once, and beyond it a batch at a time.
_ON_DEVICE_BYTES = 2**30
# Batches of pictures that are decoded while one is in use.
_AHEAD = 2


class Batches:
    """The batches of a split.

    The order of an epoch is a pure function of (seed, epoch), and the augmentation of an example one of (seed, epoch,
    position of the example in the split). So both are the same for every batch size and device, and an epoch resumes
    at any batch exactly as it would have gone on.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        shuffle: bool = False,
        augment: Sequence[Augmentation] = (),
        device: torch.device | str = "cpu",
        share: Callable[[int], Tensor] | None = None,
    ) -> None:
        """Prepares the batches; pixels are read in `epoch`.

        Args:
            split: the examples.
            batch_size: examples a batch, at least 1.
            mean: what to subtract from each channel; uint8 pixels are scaled to 0..1 first.
            std: what to divide each channel by afterwards; positive.
            seed: 0..2**63-1, of the order and of the augmentation.
            shuffle: as in training: a new order each epoch, in which every batch is full: the incomplete last one is
                dropped unless it is the only one; and of each image a random part where the split has such. Without it
                the order is the split's and the last batch may be smaller.
            augment: applied in this order to the uint8 images.
            device: where the batches are wanted. An accelerator gets a copy of the split's pixels once where these
                take at most 1 GiB.
            share: which rows, int64, of a batch of so many to load, where several processes share each; None: all.

        Raises:
            DataError: an argument is out of its range.
        """
        channels = split.images.shape[1]
        if batch_size < 1:
            raise DataError(f"the batch size must be at least 1, got {batch_size}")
        if not 0 <= seed < 2**63:
            raise DataError(f"the seed must be in 0..2**63-1, got {seed}")
        if len(mean) != channels or len(std) != channels:
            raise DataError(f"mean and std must have one value for each of the images' {channels} channels")
        if not all(0 < value < math.inf for value in std):
            raise DataError(f"std must be positive, got {tuple(std)}")
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.augment = tuple(augment)
        self.device = torch.device(device)
        self._share = share
        self._split = _on_device(split, self.device)
        self._scale, self._shift = (x.to(self.device) for x in scale_and_shift(split.images[:0], mean, std))

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self._split), self.batch_size)
        return full if self.shuffle and full else full + bool(rest)

    def epoch(self, epoch: int, *, first_batch: int = 0, normalize: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch.

        Args:
            epoch: which one, from 0.
            first_batch: how many batches to pass over, 0..len(self); a resumed epoch starts there.
            normalize: whether to normalise them. Pixels as they are, of which `normalized` makes a network's input, a
                few at a time, take a quarter of the memory.

        Returns:
            An iterator over images, float32 [B, C, H, W], normalised, in channels-last memory format, or arrays,
            float32 [B, ...], and labels, int64 [B], on the device. Without `normalize`, images are uint8 and arrays as
            the split has them.

        Raises:
            DataError: an argument is out of its range.
        """
        if epoch < 0:
            raise DataError(f"the epoch must be at least 0, got {epoch}")
        if not 0 <= first_batch <= len(self):
            raise DataError(f"the first batch must be in 0..{len(self)}, got {first_batch}")
        return self._iterate(epoch, first_batch, normalize=normalize)

    def normalized(self, images: Tensor) -> Tensor:
        """What a network takes, float32, of some images or arrays of a batch."""
        return normalized(images, self._scale, self._shift)

    def _iterate(self, epoch: int, first_batch: int, *, normalize: bool) -> Iterator[tuple[Tensor, Tensor]]:
        n, device = len(self._split), self._split.images.device
        if self.shuffle:
            order = epoch_order(n, seed=self.seed, epoch=epoch, device=device)
        else:
            order = torch.arange(n, device=device)
        parts = torch.split(order, self.batch_size)[first_batch : len(self)]
        load = partial(self._load, epoch=epoch, normalize=normalize)
        # Decoding takes about as long as a step of a small network.
        yield from map(load, parts) if self._split.random_parts is None else _ahead(load, parts)

    def _load(self, positions: Tensor, *, epoch: int, normalize: bool) -> tuple[Tensor, Tensor]:
        if self._share is not None:
            positions = positions[self._share(len(positions)).to(positions.device)]
        # Its number is behind those of the augmentations, so that these stay as they are.
        drawn = augmentation_numbers(positions, number=len(self.augment), seed=self.seed, epoch=epoch)
        images, labels = self._split.drawn(positions, drawn) if self.shuffle else self._split[positions]
        images, labels, positions = (t.to(self.device) for t in (images, labels, positions))
        for number, augmentation in enumerate(self.augment):
            random = augmentation_numbers(positions, number=number, seed=self.seed, epoch=epoch)
            images = augmentation(images, random)
        return self.normalized(images) if normalize else images, labels


def _ahead(load: Callable[[Tensor], tuple[Tensor, Tensor]], parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of some positions in their order, each made in a thread while those before it are in use."""
    with reading_threads(_AHEAD) as threads:
        coming: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for part in parts:
            coming.append(threads.submit(load, part))
            if len(coming) > _AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _on_device(split: Split, device: torch.device) -> Split:
    image_bytes = math.prod(split.images.shape[1:]) * split.images.dtype.itemsize
    if device.type == "cpu" or split.random_parts is not None or len(split) * image_bytes > _ON_DEVICE_BYTES:
        return split
    images = split.images[slice(None) if split.rows is None else split.rows]
    return Split(images=images.to(device), labels=split.labels.to(device))
