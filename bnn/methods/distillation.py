"""Distillation: a network learns from the outputs of another one beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.codec import Model, load
from bnn.data import Dataset
from bnn.errors import RecipeError
from bnn.models.torchvision_networks import pretrained_network
from bnn.training.directory import MODEL


class DistilledLoss(nn.Module):
    """part * T^2 * KL(softmax(teacher / T) || softmax(logits / T)) + (1 - part) * cross entropy of the labels.

    Pass it as the `training_loss` of a `Run`. Source: Hinton et al. 2015, arXiv 1503.02531, with its factor T^2, by
    which the gradient of the first term keeps its size. A part of 1 at temperature 1 is the distributional loss of
    ReActNet (Liu et al. 2020, arXiv 2003.03488).

    Args:
        teacher: takes the batch as the network does, and gives logits of the same classes; any module, such as a float
            network. It is put into evaluation mode and not trained.
        temperature: T, above 0.
        part: of the teacher in the loss, in [0, 1].

    Raises:
        RecipeError: the temperature or the part is out of its range.
    """

    def __init__(self, teacher: nn.Module, *, temperature: float = 4.0, part: float = 0.9) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise RecipeError(f"the temperature of a distillation is a finite number above 0, got {temperature}")
        if not 0 <= part <= 1:
            raise RecipeError(f"the teacher's part of the loss lies in [0, 1], got {part}")
        self.teacher = teacher.eval()
        self.temperature = temperature
        self.part = part

    def forward(self, logits: Tensor, labels: Tensor, x: Tensor) -> Tensor:
        """The loss, a scalar, of logits [B, classes], labels int64 [B] and the batch."""
        with torch.no_grad():
            target = (self.teacher(x).float() / self.temperature).log_softmax(dim=1)
        own = (logits / self.temperature).log_softmax(dim=1)
        divergence = F.kl_div(own, target, reduction="batchmean", log_target=True)
        return self.part * self.temperature**2 * divergence + (1 - self.part) * F.cross_entropy(logits, labels)


class Teacher(nn.Module):
    """A trained network of a model file, for the images and classes of a data set.

    Args:
        model: as `bnn.load` gives it; it knows the classes of the data, and perhaps more.
        data: that the other network is trained on.

    Raises:
        RecipeError: it takes other images, or does not know a class.
    """

    factor: Tensor
    offset: Tensor
    columns: Tensor

    def __init__(self, model: Model, data: Dataset) -> None:
        super().__init__()
        takes, unknown = model.preprocessing, [name for name in data.classes if name not in model.classes]
        if takes is None or tuple(takes.image_shape) != data.image_shape:
            shape = "it does not say which" if takes is None else _size(takes.image_shape)
            raise RecipeError(f"the teacher takes images of {shape}, the data have {_size(data.image_shape)}")
        if unknown:
            raise RecipeError(
                f"the teacher does not know the class {unknown[0]!r}; it knows {', '.join(model.classes)}"
            )
        self.model = model.requires_grad_(False)
        own, there = torch.tensor([data.mean, data.std]), torch.tensor([takes.mean, takes.std])
        channels = (-1, *[1] * (len(data.image_shape) - 1))
        self.register_buffer("factor", (own[1] / there[1]).view(channels))
        self.register_buffer("offset", ((own[0] - there[0]) / there[1]).view(channels))
        self.register_buffer("columns", torch.tensor([model.classes.index(name) for name in data.classes]))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [B, classes of the data], of images that are normalised as the data are."""
        logits: Tensor = self.model(x * self.factor + self.offset)
        return logits.index_select(1, self.columns)


def trained_teacher(path: Path, data: Dataset) -> Teacher:
    """The teacher of a run's directory or a model file (.bnnz).

    Raises:
        CodecError: the file cannot be read.
        RecipeError: it takes other images than the data have, or does not know a class.
    """
    return Teacher(load(path / MODEL if path.is_dir() else path), data)


def torchvision_teacher(name: str, data: Dataset) -> Teacher:
    """A float classifier of torchvision, such as `resnet34`, with its published weights, for the classes of ImageNet.

    These are known by their order, which is that of the folders' names.

    Raises:
        DataError: torchvision is not installed, or cannot fetch the weights.
        RecipeError: there is no such classifier, or the data have other images or another number of classes.
    """
    network, takes, classes = pretrained_network(name)
    if classes != data.num_classes:
        raise RecipeError(f"{name} tells the {classes} classes of ImageNet apart, the data have {data.num_classes}")
    if data.image_shape[0] == len(takes.mean):  # of any height and width
        takes = replace(takes, image_shape=data.image_shape)
    return Teacher(Model(network, preprocessing=takes, classes=data.classes), data)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
