"""A binary perceptron on your own measurements: a table (CSV) or arrays (NumPy) with classes."""

from functools import partial
from pathlib import Path

from bnn.data import Dataset, measurements
from bnn.errors import DataError, RecipeError
from bnn.models import mlp
from bnn.presets import Preset, prepare
from bnn.training import Run, warmup_cosine


def data(
    *,
    data_dir: Path,
    test: Path | None = None,
    target: str | None = None,
    test_part: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Loads numbers with classes.

    Args:
        data_dir: a CSV file, an .npz file with x and y, or a folder with train.csv and test.csv, with train.npz and
            test.npz, or with x.npy and y.npy.
        test: a file of the examples to test on; null takes those of the folder or, without such, a part of the data.
        target: the column of the class, by name or, where the file has no header, by its number from 1; null: the last.
        test_part: part of each class to test on, of data that are not divided.
        seed: of the division.
    """
    return measurements(data_dir, test=test, target=target, test_part=test_part, seed=seed, name="arrays")


def recipe(
    data: Dataset,
    *,
    preset: Preset = "standard",
    epochs: int = 60,
    batch_size: int = 32,
    learning_rate: float | None = None,
    width: int = 256,
    hidden_layers: int = 2,
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a binary multilayer perceptron on a table or arrays, each feature or channel of which is standardised.

    Their means and deviations and the names of columns and classes are kept with the network, for `bnn predict`.

    Args:
        data: see the function `data`.
        preset: how much memory the training takes; see bnn.presets.
        epochs: passes over the training examples.
        batch_size: examples a step.
        learning_rate: at the start; a cosine takes it to 0. By default the preset's own.
        width: units of each hidden layer.
        hidden_layers: number of hidden layers.
        validation: part of the training examples to hold out.
        seed: of the weights, the order of the examples, the division and the validation split.
    """
    if data.num_classes < 2:
        raise DataError(f"{data.source} has the one class {data.classes[0]}: a network tells at least 2 apart")
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
        validation=validation,
        schedule=warmup_cosine(epochs),
    )
