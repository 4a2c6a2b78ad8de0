"""ReCU's ResNet-18 for ImageNet, or any large set of pictures, from shards."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from bnn.data import Dataset, RandomFlip
from bnn.data.shards import sharded
from bnn.methods import TauSchedule
from bnn.models import initialize
from bnn.models.resnet_imagenet import recu_resnet18
from bnn.presets import Preset, prepare
from bnn.quantizers import ApproxSign, ReCU
from bnn.training import Precision, Run, TrainingStep, warmup_cosine
from bnn.weights import LatentStore


def data(*, data_dir: Path, image_size: int = 224) -> Dataset:
    """Loads shards, which `bnn data shard` makes of a folder of pictures once.

    Args:
        data_dir: folder of the shards.
        image_size: height and width in pixels of what the network sees, a multiple of 32.
    """
    return sharded(data_dir, size=image_size)


def recipe(
    data: Dataset,
    *,
    preset: Preset = "standard",
    epochs: int = 200,
    batch_size: int = 512,
    learning_rate: float | None = None,
    weight_decay: float = 1e-4,
    warmup_epochs: float = 5.0,
    tau_start: float = 0.85,
    tau_end: float = 0.99,
    precision: Precision = "float32",
    validation: float = 0.01,
    seed: int = 0,
) -> Run:
    """Trains ReCU's ResNet-18 in one stage, with the settings of its public code for ImageNet.

    These are SGD with momentum 0.9, weight decay of convolutions and classifier, but not of norms nor of the real
    convolutions in shortcuts, 5 epochs of warm-up and a cosine, random parts and flips. Source: Xu et al., arXiv
    2103.12369, which reports 61.0 % top-1, and https://github.com/z-hXu/ReCU. No training of all of ImageNet stands
    behind this recipe. A part of the training images is held out for validation, which the public code does not do.

    Args:
        data: see the function `data`.
        preset: how much memory the training takes: standard is float32 with the SGD of the public code, and alone has
            its gradient windows as wide as an example's deviation; for edge and edge-min see bnn.presets.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: after the warm-up; a cosine takes it to 0. By default 0.1, or the preset's own.
        weight_decay: of the preset standard.
        warmup_epochs: in which the learning rate rises from 0; of short runs, a quarter of the epochs at most.
        tau_start: ReCU's quantile in the first epoch.
        tau_end: ReCU's quantile at the end.
        precision: of the products in training and evaluation; bfloat16 is several times as fast on some processors.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the parts that are seen and the validation split.
    """
    build = partial(
        recu_resnet18,
        input_shape=data.image_shape,
        classes=data.num_classes,
        store=partial(LatentStore, quantizer=ReCU(tau=tau_start)),
        input_quantizer=ApproxSign(normalize=preset == "standard"),
    )
    if preset == "standard":
        network = build()
        initialize(network, generator=torch.Generator().manual_seed(seed))
        rate = 0.1 if learning_rate is None else learning_rate
        optimizer = torch.optim.SGD(_decayed(network, weight_decay), lr=rate, momentum=0.9)
        step = TrainingStep(model=network, optimizer=optimizer)
    else:
        step = prepare(preset, build, input_shape=data.image_shape, learning_rate=learning_rate, seed=seed)
    return Run(
        **vars(step) | {"precision": precision},
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs, warmup_epochs=min(warmup_epochs, epochs / 4)),
        augment=[RandomFlip()],
        callbacks=[TauSchedule(start=tau_start, end=tau_end)],
    )


def _decayed(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters in a group that decays and one that does not: norms and the real convolutions in shortcuts."""
    without = [
        parameter
        for name, module in network.named_modules()
        for parameter in module.parameters(recurse=False)
        if "shortcut" in name or isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
    ]
    kept = set(without)
    decayed = [parameter for parameter in network.parameters() if parameter not in kept]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
