"""BinaryNet on CIFAR-10."""

from pathlib import Path

import torch

from bnn.data import RandomFlip, RandomShift, cifar10
from bnn.models import binarynet, initialize
from bnn.training import ClipLatents, Run, warmup_cosine


def recipe(
    *,
    data_dir: Path,
    epochs: int = 200,
    batch_size: int = 100,
    learning_rate: float = 3e-3,
    validation: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Run:
    """Trains BinaryNet, whose 14.0 million weights are all binary, on CIFAR-10.

    Network, augmentation and optimizer are those of Courbariaux et al., arXiv 1602.02830, as Wang et al.,
    arXiv 2102.04270, set them up; the learning rate follows a cosine.

    Args:
        data_dir: folder of torchvision's CIFAR-10, or an image folder with train/CLASS and test/CLASS.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at its start; a cosine takes it to 0.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the augmentation and the validation split.
        download: fetch CIFAR-10 into data_dir if it is not there.
    """
    data = cifar10(data_dir, download=download)
    model = binarynet(input_shape=data.image_shape, classes=data.num_classes)
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
        augment=[RandomShift(fraction=0.15), RandomFlip()],
        callbacks=[ClipLatents()],
    )
