"""GXNOR-Net on SVHN: ternary weights that are trained without a copy of more bits, and ternary activations."""

from pathlib import Path

import torch

from bnn.cost.gated_xnor import GatedXnorMeter
from bnn.data import RandomCrop, svhn
from bnn.models import initialize
from bnn.models.gxnor_cnn import gxnor_vgg
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
    validation: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Run:
    """Trains a ternary VGG-like network on SVHN by discrete state transitions.

    Network, activation and m are those of Deng et al., arXiv 1705.09283. Images are cropped at random, but not
    mirrored, as they are digits; Adam's mean is longer, the batches are smaller, the loss is the cross-entropy and the
    learning rate follows a cosine. svhn_mtj.py is the same on junctions.

    Args:
        data_dir: folder of torchvision's SVHN, with train_32x32.mat and test_32x32.mat.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at the start; a cosine takes it to 0.
        momentum: decay of Adam's mean; see DST for why it is long.
        m: steepness of the tanh that gives the probability of a transition; null keeps every step on average.
        validation: part of the training images to hold out.
        seed: of the weights, the transitions, the order of the images, the augmentation and the validation split.
        download: fetch SVHN into data_dir if it is not there.
    """
    data = svhn(data_dir, download=download)
    model = gxnor_vgg(input_shape=data.image_shape, classes=data.num_classes)
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
        augment=[RandomCrop(padding=4)],
        callbacks=[GatedXnorMeter()],
    )
