"""Binary networks for ImageNet, or any large set of pictures, from shards."""

from functools import partial
from pathlib import Path
from typing import Literal

from bnn.data import Dataset, RandomFlip
from bnn.data.shards import sharded
from bnn.models import birealnet18, resnete18
from bnn.models.zoo import quicknet, quicknet_large, quicknet_small
from bnn.presets import Preset, prepare
from bnn.training import Precision, Run, warmup_cosine

_MODELS = {
    "resnete18": resnete18,
    "birealnet18": birealnet18,
    "quicknet_small": quicknet_small,
    "quicknet": quicknet,
    "quicknet_large": quicknet_large,
}


def data(*, data_dir: Path, image_size: int = 224) -> Dataset:
    """Loads shards, which `bnn data shard` makes of a folder of pictures once.

    Args:
        data_dir: folder of the shards.
        image_size: height and width in pixels of what the network sees, a multiple of 32.
    """
    return sharded(data_dir, size=image_size)


def recipe(
    data: Dataset,
    *,
    model: Literal["resnete18", "birealnet18", "quicknet_small", "quicknet", "quicknet_large"] = "resnete18",
    preset: Preset = "edge",
    epochs: int = 120,
    batch_size: int = 256,
    learning_rate: float | None = None,
    warmup_epochs: float = 5.0,
    precision: Precision = "float32",
    validation: float = 0.01,
    seed: int = 0,
) -> Run:
    """Trains a binary network on a large set of pictures.

    Pictures are decoded as the training goes on: a random part of each, of 0.08 to 1 of its area, mirrored or not; for
    validation and testing the centre. The networks are those of the papers (see their functions in bnn.models); the
    rates and the number of epochs are the presets' and ours, and no training of all of ImageNet stands behind them.

    Args:
        data: see the function `data`.
        model: the network: resnete18, birealnet18, quicknet_small, quicknet or quicknet_large.
        preset: how much memory the training takes; see bnn.presets.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: after the warm-up; a cosine takes it to 0. By default the preset's own.
        warmup_epochs: in which the learning rate rises from 0; of short runs, a quarter of the epochs at most.
        precision: of the products; bfloat16 is several times as fast on some processors.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the parts that are seen and the validation split.
    """
    network = partial(_MODELS[model], input_shape=data.image_shape, classes=data.num_classes)
    step = prepare(preset, network, input_shape=data.image_shape, learning_rate=learning_rate, seed=seed)
    return Run(
        **vars(step) | {"precision": precision},
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs, warmup_epochs=min(warmup_epochs, epochs / 4)),
        augment=[RandomFlip()],
    )
