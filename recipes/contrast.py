"""Features of pictures without labels, by spatial contrasting, and how well a linear map of them tells classes."""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bnn.data import Dataset, RandomFlip, load_dataset
from bnn.errors import RecipeError
from bnn.methods import LinearProbe, SpatialContrast
from bnn.methods.spatial_contrast import unlabelled
from bnn.models import resnet8, resnet20
from bnn.presets import Preset, prepare
from bnn.training import Run, warmup_cosine

_MODELS = {"resnet8": resnet8, "resnet20": resnet20}


def data(*, data_dir: Path, train_images: int | None = None, download: bool = False) -> Dataset:
    """Loads CIFAR-10, or a part of its training images.

    Args:
        data_dir: folder of torchvision's CIFAR-10, or an image folder with train/CLASS and test/CLASS.
        train_images: take this many of the training images, at random; null takes all.
        download: fetch CIFAR-10 into data_dir if it is not there.
    """
    return load_dataset("cifar10", data_dir, download=download, train_images=train_images)


def recipe(
    data: Dataset,
    *,
    model: Literal["resnet8", "resnet20"] = "resnet8",
    width: int = 16,
    patch: int = 16,
    preset: Preset = "standard",
    epochs: int = 20,
    batch_size: int = 100,
    learning_rate: float | None = None,
    probe_images: int = 5000,
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a binary network to tell patches of one picture from those of another; no label is used.

    Its loss begins near ln 2, and its accuracy, at one half, says how often two patches of a picture are nearer to each
    other than to one of the next picture. The summary has `probe_accuracy`: that of a linear map of the features,
    fitted with the labels of some images, and the same of the random filters at the start. Other trainings start from
    the network, as in `bnn train images --start RUN`. Source: Hoffer, Hubara and Ailon 2016, arXiv 1611.06996.

    Args:
        data: see the function `data`.
        model: the network, whose classifier is left out.
        width: channels of its first stage.
        patch: height and width of a patch in pixels, at most those of a picture.
        preset: how much memory the training takes; see bnn.presets.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: at the start; a cosine takes it to 0. By default the preset's own.
        probe_images: training images that the linear map is fitted on.
        validation: part of the training images to hold out.
        seed: of the weights, the patches, the order of the images and the validation split.
    """
    if not 1 <= patch <= min(data.image_shape[1:]):
        raise RecipeError(f"a patch has from 1 to {min(data.image_shape[1:])} pixels a side, got {patch}")
    if probe_images < 1:
        raise RecipeError(f"the linear map is fitted on at least 1 image, got {probe_images}")
    generator = torch.Generator().manual_seed(seed)

    def build() -> nn.Module:
        whole = _MODELS[model](input_shape=data.image_shape, classes=data.num_classes, width=width)
        return SpatialContrast(whole[:-1], patch=patch, generator=generator)

    step = prepare(preset, build, input_shape=data.image_shape, learning_rate=learning_rate, seed=seed)
    return Run(
        **vars(step) | {"generators": {**step.generators, "patches": generator}},
        data=unlabelled(data),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=[RandomFlip()],
        callbacks=[LinearProbe(data, images=probe_images)],
    )
