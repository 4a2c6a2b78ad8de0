"""A network on CIFAR-10 whose weights take half a bit in a file: penalized, made sparse and ternary, tuned."""

from pathlib import Path
from typing import Literal

import torch

from bnn.cost.meters.weights import WeightMeter
from bnn.data import Dataset, RandomCrop, RandomFlip, load_dataset
from bnn.errors import RecipeError
from bnn.methods import (
    Compressibility,
    HoyerSquare,
    PenalizedLoss,
    PenaltySchedule,
    Ternarize,
    Transposable,
)
from bnn.models import initialize, vgg7
from bnn.training import Callback, Precision, Run, sequential, start_from, trapezoid, warmup_cosine
from bnn.weights import SparseStore

_PENALTIES = {"compressibility": Compressibility, "hoyer_square": HoyerSquare}


def data(*, data_dir: Path, train_images: int | None = None, download: bool = False) -> Dataset:
    """Loads CIFAR-10, or a part of its training images.

    Args:
        data_dir: folder of torchvision's CIFAR-10, or an image folder with train/CLASS and test/CLASS.
        train_images: take this many of the training images, at random; null takes all.
        download: fetch CIFAR-10 into data_dir if it is not there.
    """
    return load_dataset("cifar10", data_dir, download=download, train_images=train_images)


def recipe(
    data: Dataset,
    *,
    start: Path | None = None,
    width: int = 32,
    hidden: int = 1024,
    density: float | None = 0.105,
    pattern: str | None = None,
    penalty: Literal["compressibility", "hoyer_square"] = "compressibility",
    scope: Literal["layer", "network"] = "layer",
    strength: float = 0.0,
    real_epochs: int = 16,
    epochs: int = 32,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    tuning_rate: float = 0.02,
    weight_decay: float = 5e-4,
    precision: Precision = "bfloat16",
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a VGG-7 of real activations on CIFAR-10 whose weights become sparse and ternary, or stay real.

    The loss may have a penalty whose strength rises for a quarter of the real epochs, stays, and falls to 0 over their
    last quarter (see Compressibility for the reason). Then the largest weights are kept (see Ternarize) and become -a
    or a, one magnitude a layer, the others 0. They are tuned, and which are kept changes, but for the last quarter of
    the ternary epochs. The stem and the classifier stay real. Compress what comes out with `bnn compress`; density null
    trains the same network without penalty and leaves its weights as they are. Source of the penalty: Aytekin, Cricri
    and Aksu 2019, arXiv 1905.01044; of what follows it, see Ternarize.

    Args:
        data: see the function `data`.
        start: directory of a run of this recipe, such as one with density null; its weights take the place of the real
            epochs.
        width: channels of the first convolution.
        hidden: outputs of the first linear layer, which has most of the weights.
        density: share of the weights that is kept, in (0, 1]; 1 makes them binary, null leaves them real.
        pattern: N:M, such as 4:8, in the place of density: N of M weights are kept in each row and column of a block
            (see Transposable); for products in hardware that skips the others, forward and backward.
        penalty: on the weights while they are real.
        scope: whether each layer has its penalty or all are one vector.
        strength: largest factor of the penalty; what follows does as well without it, see benchmarks/records.
        real_epochs: epochs before the weights become ternary.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of SGD with momentum 0.9, after a warm-up of an epoch; a cosine takes it to 0.
        tuning_rate: of SGD at the start of the ternary epochs, from where another cosine begins.
        weight_decay: of every parameter.
        precision: of the products in training and evaluation; bfloat16 is several times as fast on some processors.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the augmentation and the validation split.
    """
    kept = None if pattern is None else Transposable.parse(pattern)
    is_sparse = density is not None or kept is not None
    if start is not None:
        real_epochs = 0
    elif is_sparse and not 0 < real_epochs < epochs:
        raise RecipeError(f"of {epochs} epochs, {real_epochs} cannot be real: take at least 1 and leave 1 for tuning")
    if not tuning_rate > 0:
        raise RecipeError(f"the tuning rate is above 0, got {tuning_rate}")
    network = vgg7(
        input_shape=data.image_shape, classes=data.num_classes, width=width, hidden=hidden, store=SparseStore
    )
    initialize(network, generator=torch.Generator().manual_seed(seed))
    if start is not None:
        start_from(start, network)
    callbacks: list[Callback] = [WeightMeter()]
    loss = PenalizedLoss(network, _PENALTIES[penalty](scope=scope))
    schedule = warmup_cosine(epochs, warmup_epochs=min(1, epochs / 4))
    if is_sparse:
        ternary = warmup_cosine(epochs - real_epochs)
        real = warmup_cosine(real_epochs, warmup_epochs=min(1, real_epochs / 4)) if real_epochs else ternary
        schedule = sequential(real, real_epochs, ternary, scale=tuning_rate / learning_rate)
        share = density if kept is None else None
        final = epochs - (epochs - real_epochs) // 4
        callbacks.append(Ternarize(epoch=real_epochs, density=share, pattern=kept, final_epoch=final))
    if is_sparse and real_epochs:
        quarter = real_epochs / 4
        rise_and_fall = trapezoid(real_epochs, peak=strength, rise_epochs=quarter, fall_epochs=quarter)
        callbacks.append(PenaltySchedule(loss, rise_and_fall))
    return Run(
        model=network,
        data=data,
        optimizer=torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        loss=loss,
        validation=validation,
        schedule=schedule,
        precision=precision,
        augment=[RandomCrop(padding=4), RandomFlip()],
        callbacks=callbacks,
    )
