"""GXNOR-Net on MNIST: ternary weights that are trained without a copy of more bits, and ternary activations."""

from pathlib import Path

import torch

from bnn.cost.gated_xnor import GatedXnorMeter
from bnn.data import RandomShift, mnist
from bnn.models import initialize
from bnn.models.gxnor_cnn import gxnor_cnn
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.training import Run, warmup_cosine


def recipe(
    *,
    data_dir: Path,
    epochs: int = 100,
    batch_size: int = 100,
    learning_rate: float = 1e-2,
    momentum: float = 0.997,
    m: float | None = 3.0,
    shift: float = 0.0,
    validation: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Run:
    """Trains a ternary convolutional network on MNIST by discrete state transitions.

    Network, activation and m are those of Deng et al., arXiv 1705.09283; Adam's mean is longer, the batches are
    smaller, the loss is the cross-entropy and the learning rate follows a cosine. A weight takes two bits in training
    as well; Adam's two moments come on top.

    Args:
        data_dir: folder of torchvision's MNIST, that is with MNIST/raw in it.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at the start; a cosine takes it to 0.
        momentum: decay of Adam's mean; see DST for why it is long.
        m: steepness of the tanh that gives the probability of a transition; null keeps every step on average.
        shift: largest random shift of the training images, as a part of their height and width.
        validation: part of the training images to hold out.
        seed: of the weights, the transitions, the order of the images and the validation split.
        download: fetch MNIST into data_dir if it is not there.
    """
    data = mnist(data_dir, download=download)
    model = gxnor_cnn(input_shape=data.image_shape, classes=data.num_classes)
    initialize(model, generator=torch.Generator().manual_seed(seed))
    return Run(
        model=model,
        data=data,
        optimizer=DST(Adam(model.parameters(), lr=learning_rate, betas=(momentum, 0.999), seed=seed), m=m),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=[RandomShift(fraction=shift)] if shift else [],
        callbacks=[GatedXnorMeter()],
    )
