"""ReCU on CIFAR-10: binary residual networks whose dead weights are revived."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch

from bnn.data import RandomCrop, RandomFlip, cifar10
from bnn.models import initialize, resnet18, resnet20, vgg_small
from bnn.quantizers import ReCU
from bnn.stores import LatentStore
from bnn.training import ProjectLatents, Run, TauSchedule, warmup_cosine

_MODELS = {"resnet18": resnet18, "resnet20": resnet20, "vgg_small": vgg_small}


def recipe(
    *,
    data_dir: Path,
    model: Literal["resnet18", "resnet20", "vgg_small"] = "resnet20",
    epochs: int = 600,
    batch_size: int = 256,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    warmup_epochs: int = 5,
    tau_start: float = 0.85,
    tau_end: float = 0.99,
    tail: Literal["zero", "pass", "project"] = "zero",
    validation: float = 0.1,
    seed: int = 0,
    download: bool = False,
) -> Run:
    """Trains a binary network with ReCU on CIFAR-10.

    Settings are those of the public code of Xu et al., arXiv 2103.12369: SGD with momentum 0.9 and weight decay on
    every parameter, 5 epochs of warm-up and a cosine, crops and flips, the first and last layer real. A part of the
    training images is held out for validation, which the public code does not do.

    Args:
        data_dir: folder of torchvision's CIFAR-10, or an image folder with train/CLASS and test/CLASS.
        model: the network.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of SGD after the warm-up; a cosine takes it to 0.
        weight_decay: of every parameter.
        warmup_epochs: in which the learning rate rises from 0; of short runs, a quarter of the epochs at most.
        tau_start: ReCU's quantile in the first epoch.
        tau_end: ReCU's quantile at the end.
        tail: gradient of the weights beyond the quantile; see bnn.quantizers.ReCU.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the augmentation and the validation split.
        download: fetch CIFAR-10 into data_dir if it is not there.
    """
    data = cifar10(data_dir, download=download)
    network = _MODELS[model](
        input_shape=data.image_shape,
        classes=data.num_classes,
        store=partial(LatentStore, quantizer=ReCU(tau=tau_start, tail=tail)),
    )
    initialize(network, generator=torch.Generator().manual_seed(seed))
    return Run(
        model=network,
        data=data,
        optimizer=torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs, warmup_epochs=min(warmup_epochs, epochs / 4)),
        augment=[RandomCrop(padding=4), RandomFlip()],
        callbacks=[TauSchedule(start=tau_start, end=tau_end), ProjectLatents()],
    )
