"""Spatial contrasting: features that tell patches of one picture from those of another, without labels."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.data import Batches, Dataset, Split
from bnn.errors import RecipeError
from bnn.training import Callback, Trainer

_BATCH = 500
_RIDGE = 1e-3  # of the mean second moment of a feature


class SpatialContrast(nn.Sequential):
    """An encoder that is asked, of two patches, which is from the same picture as a third.

    With features f of two patches of a picture and g of a patch of another one, the next in the batch, it gives
    -|f1 - f2| and -|f1 - g1|: where label 0 is the right answer, the cross-entropy of these is

        -log(exp(-|f1 - f2|) / (exp(-|f1 - f2|) + exp(-|f1 - g1|))),

    ln 2 by chance. Each picture is asked about once, and once the other one. Source: Hoffer, Hubara and Ailon 2016,
    arXiv 1611.06996. Weights have the encoder's own names, so that a network that begins with its layers can start from
    them. In evaluation the patches are the upper left and the lower right one.

    Args:
        encoder: its parts become this network's; it takes pictures of any size and gives features, [B, D].
        patch: height and width of a patch in pixels, at least 1 and at most the picture's.
        generator: of the places of patches in training; on the CPU.
    """

    def __init__(self, encoder: nn.Sequential, *, patch: int, generator: torch.Generator) -> None:
        super().__init__(*encoder)
        self.patch = patch
        self.generator = generator

    def features(self, x: Tensor) -> Tensor:
        """What the encoder gives, [B, D], of pictures or patches [B, C, H, W]."""
        return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Of pictures [B, C, H, W] the logits of the same one and of the next one, [B, 2].

        Raises:
            RecipeError: a picture is smaller than a patch.
        """
        room = (x.shape[2] - self.patch, x.shape[3] - self.patch)
        if min(room) < 0:
            raise RecipeError(
                f"a patch of {self.patch} pixels does not fit into a picture of {x.shape[2]} x {x.shape[3]}"
            )
        first, second = (self.features(self._patches(x, room, number)) for number in range(2))
        same, other = (first - second).float(), (first - first.roll(1, 0)).float()
        # The root has no slope at 0.
        sizes = [apart.square().sum(1).add(1e-6).sqrt() for apart in (same, other)]
        return -torch.stack(sizes, 1)

    def _patches(self, x: Tensor, room: tuple[int, int], number: int) -> Tensor:
        """The first or second patch of each picture, [B, C, P, P]."""
        if not self.training:
            top, left = number * room[0], number * room[1]
            return x[:, :, top : top + self.patch, left : left + self.patch]
        places = [torch.randint(most + 1, (len(x),), generator=self.generator).tolist() for most in room]
        cut = [
            image[:, top : top + self.patch, left : left + self.patch]
            for image, top, left in zip(x, *places, strict=True)
        ]
        return torch.stack(cut)


def unlabelled(data: Dataset) -> Dataset:
    """The same pictures with label 0, the same picture's, in the place of their own."""

    def without(split: Split) -> Split:
        return Split(split.images, torch.zeros_like(split.labels), split.rows, split.random_parts)

    classes = ("the same picture", "another")
    return replace(data, train=without(data.train), test=without(data.test), classes=classes)


class LinearProbe(Callback):
    """Adds to the summary how well a linear map of the features tells classes: `probe_accuracy`, of the test images.

    It is the least squares of one-hot classes with a ridge, which needs no rate and no epochs; norms take the
    statistics of the batch. `probe_accuracy_at_start` is the same before the first step: of random filters.

    Args:
        data: with labels.
        images: of them, how many of the training images it is fitted on, at random.
    """

    def __init__(self, data: Dataset, *, images: int) -> None:
        self.data = data
        self.images = images
        self._at_start: float | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Measures random filters."""
        if trainer.step == 0:
            self._at_start = self._accuracy(trainer.run.model)

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Measures the trained ones."""
        summary["probe_accuracy"] = self._accuracy(trainer.run.model)
        summary["probe_accuracy_at_start"] = self._at_start

    def state(self) -> dict[str, Any]:
        """The accuracy of random filters."""
        return {"at_start": self._at_start}

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses what is no accuracy."""
        if state.get("at_start") is not None and not 0 <= state["at_start"] <= 1:
            raise ValueError("an accuracy lies in 0..1")

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes it back."""
        self._at_start = state.get("at_start")

    @torch.no_grad()
    def _accuracy(self, model: nn.Module) -> float:
        encoder: Any = copy.deepcopy(model).train()
        train = Split(self.data.train.images, self.data.train.labels, self.data.train.rows)
        x, labels = self._features(encoder, train, self.images)
        x_test, labels_test = self._features(encoder, self.data.test, len(self.data.test))
        wanted = F.one_hot(labels, self.data.num_classes).double()
        moments = x.T @ x
        ridge = _RIDGE * moments.diagonal().mean()
        weight = torch.linalg.solve(moments + ridge * torch.eye(len(moments), dtype=torch.float64), x.T @ wanted)
        return float(((x_test @ weight).argmax(1) == labels_test).double().mean())

    def _features(self, encoder: Any, split: Split, most: int) -> tuple[Tensor, Tensor]:
        """Of so many examples with a 1 at the end, float64 [n, D + 1], and labels."""
        # Data come sorted by class, and the statistics of a batch of one class would hide which it is.
        images, labels = split[torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:most]]
        batches = Batches(Split(images, labels), batch_size=_BATCH, mean=self.data.mean, std=self.data.std)
        rows = torch.cat([encoder.features(x).double() for x, _ in batches.epoch(0)])
        return torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1), labels
