"""GXNOR-Net on CIFAR-10: ternary weights that are trained without a copy of more bits, and ternary activations."""

from pathlib import Path

import torch

from bnn.cost.gated_xnor import GatedXnorMeter
from bnn.data import RandomCrop, RandomFlip, cifar10
from bnn.models import initialize
from bnn.models.gxnor_cnn import gxnor_vgg
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.training import Precision, Run, warmup_cosine


def recipe(
    *,
    data_dir: Path,
    epochs: int = 200,
    batch_size: int = 100,
    learning_rate: float = 1e-2,
    momentum: float = 0.997,
    m: float | None = 3.0,
    precision: Precision = "bfloat16",
    validation: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Run:
    """Trains a ternary VGG-like network on CIFAR-10 by discrete state transitions.

    Network, activation and m are those of Deng et al., arXiv 1705.09283, with random crops and flips of the training
    images; Adam's mean is longer, the batches are smaller, the loss is the cross-entropy and the learning rate follows
    a cosine.

    Args:
        data_dir: folder of torchvision's CIFAR-10, or an image folder with train/CLASS and test/CLASS.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at the start; a cosine takes it to 0.
        momentum: decay of Adam's mean; see DST for why it is long.
        m: steepness of the tanh that gives the probability of a transition; null keeps every step on average.
        precision: of the products in training and evaluation; levels are exact in either, gradients are rounded to
            bfloat16, which some processors multiply several times as fast.
        validation: part of the training images to hold out.
        seed: of the weights, the transitions, the order of the images, the augmentation and the validation split.
        download: fetch CIFAR-10 into data_dir if it is not there.
    """
    data = cifar10(data_dir, download=download)
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
        precision=precision,
        schedule=warmup_cosine(epochs),
        augment=[RandomCrop(padding=4), RandomFlip()],
        callbacks=[GatedXnorMeter()],
    )
