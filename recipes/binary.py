"""All-binary convolutional networks on CIFAR-10."""

from functools import partial
from pathlib import Path
from typing import Literal

from bnn.data import Dataset, RandomFlip, RandomShift, cifar10
from bnn.models import binarynet, cnv
from bnn.presets import Preset, prepare
from bnn.training import Run, warmup_cosine

_MODELS = {"binarynet": binarynet, "cnv": cnv}


def data(*, data_dir: Path, download: bool = False) -> Dataset:
    """Loads CIFAR-10.

    Args:
        data_dir: folder of torchvision's CIFAR-10, or an image folder with train/CLASS and test/CLASS.
        download: fetch CIFAR-10 into data_dir if it is not there.
    """
    return cifar10(data_dir, download=download)


def recipe(
    data: Dataset,
    *,
    model: Literal["binarynet", "cnv"] = "binarynet",
    preset: Preset = "standard",
    epochs: int = 200,
    batch_size: int = 100,
    learning_rate: float | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains BinaryNet or the smaller CNV, whose weights are all binary, on CIFAR-10.

    Network and augmentation are those of Courbariaux et al., arXiv 1602.02830, as Wang et al., arXiv 2102.04270, set
    them up; the learning rate follows a cosine.

    Args:
        data: see the function `data`.
        model: the network.
        preset: how much memory the training takes; see bnn.presets.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: at the start; a cosine takes it to 0. By default the preset's own.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the augmentation and the validation split.
    """
    network = partial(_MODELS[model], input_shape=data.image_shape, classes=data.num_classes)
    step = prepare(preset, network, input_shape=data.image_shape, learning_rate=learning_rate, seed=seed)
    return Run(
        **vars(step),
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=[RandomShift(fraction=0.15), RandomFlip()],
    )
