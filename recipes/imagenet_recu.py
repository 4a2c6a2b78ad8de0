"""ReCU's ResNet-18 for ImageNet, or any large set of pictures, from shards, in one stage or two."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bnn.data import Dataset, RandomFlip
from bnn.data.shards import sharded
from bnn.errors import RecipeError
from bnn.methods import DistilledLoss, TauSchedule, torchvision_teacher, trained_teacher
from bnn.models import initialize
from bnn.models.resnet_imagenet import recu_resnet18
from bnn.presets import Preset, prepare
from bnn.quantizers import ApproxSign, ReCU
from bnn.training import Precision, Run, TrainingStep, warmup_cosine
from bnn.training.start import take_weights, weights_of
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
    stage: Literal["only", "first", "second"] = "only",
    start: Path | None = None,
    teacher: Path | None = None,
    float_teacher: str | None = None,
    preset: Preset = "standard",
    epochs: int | None = None,
    batch_size: int = 512,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    warmup_epochs: float = 5.0,
    tau_start: float = 0.85,
    tau_end: float = 0.99,
    precision: Precision = "float32",
    validation: float = 0.01,
    seed: int = 0,
) -> Run:
    """Trains ReCU's ResNet-18 in one stage, with the settings of its public code for ImageNet, or in two.

    One stage: SGD with momentum 0.9, weight decay of convolutions and classifier, but not of norms nor of the real
    convolutions in shortcuts, 5 epochs of warm-up and a cosine, random parts and flips. Source: Xu et al., arXiv
    2103.12369, which reports 61.0 % top-1, and https://github.com/z-hXu/ReCU. Two stages: Adam without weight decay,
    first with binary inputs and real weights, then from these with binary weights, each by a teacher's outputs alone
    (Liu et al. 2020, arXiv 2003.03488), as the same code does; its network for it, of which it reports 66.4 %, has
    biases and slopes of each channel besides. No training of all of ImageNet stands behind this recipe. A part of the
    training images is held out for validation, which the public code does not do.

    Args:
        data: see the function `data`.
        stage: only, or the first or second of two.
        start: the run of the first stage, for the second.
        teacher: a run's directory or a model file (.bnnz) that knows the classes, whose outputs take the labels' place.
        float_teacher: the same of a classifier of torchvision with its published weights, such as resnet34, for the
            classes of ImageNet.
        preset: how much memory the training takes: standard is float32 with the optimizer of the public code, and alone
            has its gradient windows as wide as an example's deviation; for edge and edge-min see bnn.presets.
        epochs: passes over the training images. By default 200, or 256 in each of two stages.
        batch_size: images a step.
        learning_rate: after the warm-up; a cosine takes it to 0. By default 0.1, or 1e-3 in each of two stages, or the
            preset's own.
        weight_decay: of the preset standard in one stage. By default 1e-4.
        warmup_epochs: in which the learning rate rises from 0; of short runs, a quarter of the epochs at most.
        tau_start: ReCU's quantile in the first epoch.
        tau_end: ReCU's quantile at the end.
        precision: of the products in training and evaluation; bfloat16 is several times as fast on some processors.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the parts that are seen and the validation split.
    """
    _check(stage, start=start, teachers=(teacher, float_teacher), weight_decay=weight_decay)
    network = partial(
        recu_resnet18,
        input_shape=data.image_shape,
        classes=data.num_classes,
        store=partial(LatentStore, quantizer=ReCU(tau=tau_start)),
        input_quantizer=ApproxSign(normalize=preset == "standard"),
        real_weights=stage == "first",
    )
    notes: list[str] = []

    def build() -> nn.Module:
        made = network()
        if preset == "standard" or start is not None:
            initialize(made, generator=torch.Generator().manual_seed(seed))
        if start is not None:
            notes.append(str(take_weights(made, weights_of(start), str(start))))
        return made

    if preset == "standard":
        step = _float_step(build(), stage, learning_rate=learning_rate, weight_decay=weight_decay)
    else:
        step = prepare(
            preset,
            build,
            input_shape=data.image_shape,
            learning_rate=learning_rate,
            seed=seed,
            keep_weights=start is not None,
        )
    if teacher is not None:
        step.training_loss = DistilledLoss(trained_teacher(teacher, data), temperature=1.0, part=1.0)
    elif float_teacher is not None:
        step.training_loss = DistilledLoss(torchvision_teacher(float_teacher, data), temperature=1.0, part=1.0)
    epochs = epochs or (200 if stage == "only" else 256)
    return Run(
        **vars(step) | {"precision": precision},
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs, warmup_epochs=min(warmup_epochs, epochs / 4)),
        augment=[RandomFlip()],
        callbacks=[] if stage == "first" else [TauSchedule(start=tau_start, end=tau_end)],
        notes=notes,
    )


def _check(
    stage: str, *, start: Path | None, teachers: tuple[Path | None, str | None], weight_decay: float | None
) -> None:
    if stage == "second" and start is None:
        raise RecipeError("the second stage begins with the weights of the first: name its run with --start")
    if stage != "second" and start is not None:
        raise RecipeError(f"--start is for the second of two stages, this is {stage}: add --stage second")
    if None not in teachers:
        raise RecipeError("there is one teacher: give --teacher or --float-teacher")
    if stage != "only" and weight_decay is not None:
        raise RecipeError("two stages have no weight decay: leave out --weight-decay")


def _float_step(
    network: nn.Module, stage: str, *, learning_rate: float | None, weight_decay: float | None
) -> TrainingStep:
    if stage != "only":
        rate = 1e-3 if learning_rate is None else learning_rate
        return TrainingStep(model=network, optimizer=torch.optim.Adam(network.parameters(), lr=rate))
    rate = 0.1 if learning_rate is None else learning_rate
    decayed = _decayed(network, 1e-4 if weight_decay is None else weight_decay)
    return TrainingStep(model=network, optimizer=torch.optim.SGD(decayed, lr=rate, momentum=0.9))


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
