"""The standard binary perceptron, 784-256x4-10, on MNIST."""

from functools import partial
from pathlib import Path

from bnn.data import Dataset, mnist
from bnn.models import mlp
from bnn.presets import Preset, prepare
from bnn.training import Run, warmup_cosine


def data(*, data_dir: Path, download: bool = False) -> Dataset:
    """Loads MNIST.

    Args:
        data_dir: folder of torchvision's MNIST, that is with MNIST/raw in it.
        download: fetch MNIST into data_dir if it is not there.
    """
    return mnist(data_dir, download=download)


def recipe(
    data: Dataset,
    *,
    preset: Preset = "standard",
    epochs: int = 50,
    batch_size: int = 100,
    learning_rate: float | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a multilayer perceptron with binary weights and activations on MNIST.

    The network is that of Wang et al., arXiv 2102.04270: no augmentation, batch norm before each sign and before
    the softmax, latent weights clipped to [-1, 1].

    Args:
        data: see the function `data`.
        preset: how much memory the training takes; see bnn.presets.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: at the start; a cosine takes it to 0. By default the preset's own.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images and the validation split.
    """
    network = partial(mlp, input_shape=data.image_shape, classes=data.num_classes)
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
