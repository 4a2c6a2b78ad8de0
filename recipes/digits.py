"""A binary perceptron on the UCI handwritten digits, which come with the package."""

from functools import partial
from pathlib import Path

from bnn.data import Dataset, RandomShift, digits
from bnn.errors import RecipeError
from bnn.models import mlp
from bnn.presets import Preset, prepare
from bnn.training import Run, warmup_cosine


def data(*, data_dir: Path | None = None) -> Dataset:
    """Loads the digits.

    Args:
        data_dir: a folder with another digits.npz; null reads the one that comes with the package.
    """
    return digits(data_dir)


def recipe(
    data: Dataset,
    *,
    preset: Preset = "standard",
    epochs: int = 100,
    batch_size: int = 32,
    learning_rate: float | None = None,
    width: int = 512,
    hidden_layers: int = 3,
    seed: int = 0,
) -> Run:
    """Trains a binary multilayer perceptron on 8x8 images of digits, which are shifted by up to a pixel.

    Args:
        data: see the function `data`.
        preset: how much memory the training takes; see bnn.presets.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: at the start; a cosine takes it to 0. By default the preset's own.
        width: units of each hidden layer.
        hidden_layers: number of hidden layers.
        seed: of the weights, the order of the images and the validation split.
    """
    if hidden_layers < 1:
        raise RecipeError(f"--hidden-layers is at least 1, got {hidden_layers}")
    network = partial(mlp, input_shape=data.image_shape, classes=data.num_classes, hidden=(width,) * hidden_layers)
    step = prepare(preset, network, input_shape=data.image_shape, learning_rate=learning_rate, seed=seed)
    return Run(
        **vars(step),
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        schedule=warmup_cosine(epochs),
        augment=[RandomShift(fraction=0.125)],
    )
