"""A binary perceptron on the UCI handwritten digits, which come with the package."""

from functools import partial
from pathlib import Path

import torch

from bnn.data import Dataset, RandomShift, digits
from bnn.errors import RecipeError
from bnn.models import initialize, mlp
from bnn.training import Run, warmup_cosine
from bnn.weights import LatentStore


def data(*, data_dir: Path | None = None) -> Dataset:
    """Loads the digits.

    Args:
        data_dir: a folder with another digits.npz; null reads the one that comes with the package.
    """
    return digits(data_dir)


def recipe(
    data: Dataset,
    *,
    epochs: int = 100,
    batch_size: int = 32,
    learning_rate: float = 1e-2,
    width: int = 512,
    hidden_layers: int = 3,
    seed: int = 0,
) -> Run:
    """Trains a binary multilayer perceptron on 8x8 images of digits, which are shifted by up to a pixel.

    Args:
        data: see the function `data`.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at its start; a cosine takes it to 0.
        width: units of each hidden layer.
        hidden_layers: number of hidden layers.
        seed: of the weights, the order of the images and the validation split.
    """
    if hidden_layers < 1:
        raise RecipeError(f"--hidden-layers is at least 1, got {hidden_layers}")
    model = mlp(
        input_shape=data.image_shape,
        classes=data.num_classes,
        hidden=(width,) * hidden_layers,
        store=partial(LatentStore, limit=1.0),
    )
    initialize(model, generator=torch.Generator().manual_seed(seed))
    return Run(
        model=model,
        data=data,
        optimizer=torch.optim.Adam(model.parameters(), lr=learning_rate),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        schedule=warmup_cosine(epochs),
        augment=[RandomShift(fraction=0.125)],
    )
