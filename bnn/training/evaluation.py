"""How well a model classifies a split: accuracy with its interval, class by class, and what is taken for what."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.codec import Model
from bnn.data import Batches, Split
from bnn.errors import DataError, RunError

_BATCH = 250
_QUANTILE_95 = 1.959963984540054  # of the standard normal distribution, two-sided


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a split."""

    classes: tuple[str, ...]
    confusion: Tensor
    """int64 [classes, classes]: images of the class of the row that were taken for the class of the column."""
    loss: float
    """Mean cross-entropy."""
    within_5: int
    """Images whose class is among those of the five largest logits."""

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """Images that were taken for what they are."""
        return int(self.confusion.diagonal().sum())

    @property
    def accuracy(self) -> float:
        """Share of them."""
        return self.correct / self.images


def evaluate(model: Model, split: Split, *, device: torch.device | str = "cpu") -> Evaluation:
    """Evaluates a model; its own preprocessing normalises the images.

    Args:
        model: whose file describes its preprocessing.
        split: images of the size that the model takes, labels within its classes.
        device: where to evaluate; the model moves there.

    Raises:
        DataError: the model takes other images or classes, or its file does not say.
        RunError: the network has other outputs than classes.
        CodecError: it fails on the images.
    """
    takes, classes = model.preprocessing, model.classes
    shape = tuple(split.images.shape[1:])
    if takes is None:
        raise DataError("the model's file does not say how images become its input")
    if shape != takes.image_shape:
        raise DataError(f"the model takes images of {list(takes.image_shape)}, these are {list(shape)}")
    if not len(split):
        raise DataError("there is no image to evaluate the model on")
    if int(split.labels.max()) >= len(classes):
        raise DataError(f"the model has {len(classes)} classes, the data have label {int(split.labels.max())}")
    model.to(device)
    confusion, loss, within_5 = torch.zeros(len(classes), len(classes), dtype=torch.int64), 0.0, 0
    batches = Batches(split, batch_size=_BATCH, mean=takes.mean, std=takes.std, device=device)
    with torch.no_grad():
        for x, labels in batches.epoch(0):
            logits = model(x)
            if logits.shape[1] != len(classes):
                raise RunError(
                    f"the network gives {list(logits.shape)} and not a logit of each of {len(classes)} classes"
                )
            loss += F.cross_entropy(logits, labels).item() * len(labels)
            largest = logits.topk(min(5, len(classes))).indices
            within_5 += int((largest == labels[:, None]).sum())
            pairs = labels.cpu() * len(classes) + logits.argmax(dim=1).cpu()
            confusion += torch.bincount(pairs, minlength=len(classes) ** 2).view_as(confusion)
    return Evaluation(classes, confusion, loss / len(split), within_5)


def wilson_interval(correct: int, images: int, *, z: float = _QUANTILE_95) -> tuple[float, float]:
    """The score interval of a share, by default of 95 %; (0, 1) of no images.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209.

    Args:
        correct: how many counted, 0..images.
        images: of how many.
        z: quantile of the normal distribution.
    """
    if not images:
        return 0.0, 1.0
    share, weight = correct / images, z * z / images
    centre = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / images + weight / (4 * images))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def relabelled(split: Split, names: Sequence[str], classes: Sequence[str]) -> Split:
    """A split whose labels are those of the model's classes.

    Args:
        split: labelled by `names`.
        names: of the split's classes; each is one of the model's.
        classes: the model's.

    Raises:
        DataError: the model does not know a class.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise DataError(f"the model does not know the class {unknown[0]!r}; it knows {', '.join(classes)}")
    places = torch.tensor([classes.index(name) for name in names])
    return Split(images=split.images, labels=places[split.labels], rows=split.rows)
