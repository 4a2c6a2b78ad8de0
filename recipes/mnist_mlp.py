"""The standard binary perceptron, 784-256x4-10, on MNIST."""

from pathlib import Path

import torch

from bnn.data import mnist
from bnn.models import initialize, mlp
from bnn.training import ClipLatents, Run, warmup_cosine


def recipe(
    *,
    data_dir: Path,
    epochs: int = 50,
    batch_size: int = 100,
    learning_rate: float = 1e-2,
    validation: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Run:
    """Trains a multilayer perceptron with binary weights and activations on MNIST.

    The network is that of Wang et al., arXiv 2102.04270: no augmentation, batch norm before each sign and before
    the softmax, latent weights clipped to [-1, 1].

    Args:
        data_dir: folder of torchvision's MNIST, that is with MNIST/raw in it.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at its start; a cosine takes it to 0.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images and the validation split.
        download: fetch MNIST into data_dir if it is not there.
    """
    data = mnist(data_dir, download=download)
    model = mlp(input_shape=data.image_shape, classes=data.num_classes)
    initialize(model, generator=torch.Generator().manual_seed(seed))
    return Run(
        model=model,
        data=data,
        optimizer=torch.optim.Adam(model.parameters(), lr=learning_rate),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        callbacks=[ClipLatents()],
    )
