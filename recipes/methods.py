"""One method of low-bit training in the place of a part of plain training; see docs/methods.md."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bnn.cost.meters import AccumulatorMeter, GradientMeter, LatentMotion
from bnn.cost.meters.latent_motion import square_root_rate
from bnn.data import Augmentation, Dataset, RandomCrop, RandomFlip, load_dataset
from bnn.errors import RecipeError
from bnn.layers import L1BatchNorm, NormFactory, RangeBatchNorm, TopKBatchNorm
from bnn.methods import MedianGradient, bep_step, boolean_step
from bnn.models import cnv, mlp, resnet8, vgg_small
from bnn.models.parts import quantize_gradients, replace_classifier, replace_norms
from bnn.presets import Preset, prepare
from bnn.quantizers import BoundedSign
from bnn.quantizers.gradients import (
    FloatGradient,
    GradientQuantizer,
    IntegerGradient,
    LognormalPruning,
    PowerOfTwoGradient,
    SamplePruning,
)
from bnn.training import Callback, Run, TrainingStep, warmup_cosine
from bnn.weights import LatentStore

Gradient = Literal["exact", "bifurcated", "int4", "fp8", "fp6", "power_of_two", "pruned", "one_bit"]
Norm = Literal["batch", "l1", "range", "top10", "linf"]
Optimizer = Literal["preset", "boolean", "boolean_relative", "boolean_sign", "boolean_no_leak", "boolean_narrow", "bep"]

_MODELS = {
    "mlp": mlp,
    "cnv": cnv,
    "resnet8": resnet8,
    "vgg_small": vgg_small,
    "vgg_small_quarter": partial(vgg_small, width=32),
}
_GRADIENTS: dict[Gradient, Callable[[torch.Generator], GradientQuantizer]] = {
    "bifurcated": lambda generator: IntegerGradient(8, weight_bits=16, generator=generator),
    "int4": lambda generator: IntegerGradient(4, weight_bits=8, generator=generator),
    "fp8": lambda generator: FloatGradient(bits=8, generator=generator),
    "fp6": lambda generator: FloatGradient(bits=6, generator=generator),
    "power_of_two": lambda generator: PowerOfTwoGradient(generator=generator),
    "pruned": lambda generator: LognormalPruning(sparsity=0.85, generator=generator),
    "one_bit": lambda generator: SamplePruning(bits=4, generator=generator),
}
_NORMS: dict[Norm, NormFactory] = {
    "l1": L1BatchNorm,
    "range": RangeBatchNorm,
    "top10": TopKBatchNorm,
    "linf": partial(TopKBatchNorm, k=1),
}
_OPTIMIZERS: dict[Optimizer, Callable[..., TrainingStep]] = {
    "boolean": boolean_step,
    "boolean_relative": partial(boolean_step, relative=True, rate=0.1),
    "boolean_sign": partial(boolean_step, magnitude=False, rate=0.02),
    "boolean_no_leak": partial(boolean_step, leak=False),
    "boolean_narrow": partial(boolean_step, hysteresis=0.4),
    "bep": bep_step,
}


def data(
    *,
    data_dir: Path,
    dataset: Literal["mnist", "cifar10"] = "mnist",
    train_images: int | None = None,
    download: bool = False,
) -> Dataset:
    """Loads MNIST or CIFAR-10, or a part of its training images.

    Args:
        data_dir: folder of torchvision's data set, or an image folder with train/CLASS and test/CLASS.
        dataset: which of the two.
        train_images: take this many of the training images, at random; null takes all.
        download: fetch the data set into data_dir if it is not there.
    """
    return load_dataset(dataset, data_dir, download=download, train_images=train_images)


def recipe(
    data: Dataset,
    *,
    model: Literal["mlp", "cnv", "resnet8", "vgg_small", "vgg_small_quarter"] = "mlp",
    preset: Preset = "standard",
    gradient: Gradient = "exact",
    norm: Norm = "batch",
    head: Literal["learned", "hadamard"] = "learned",
    weights: Literal["clipped", "bounded"] = "clipped",
    optimizer: Optimizer = "preset",
    suppression: Literal["none", "rm3", "m3"] = "none",
    ghost_batch: int | None = None,
    epochs: int = 20,
    batch_size: int = 100,
    rate_of_batch: int | None = None,
    learning_rate: float | None = None,
    rate: float | None = None,
    motion: bool = False,
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a binary network with a method of docs/methods.md in the place of a part of plain training.

    Args:
        data: see the function `data`.
        model: the network; vgg_small_quarter has a quarter of vgg_small's channels, for quick comparisons.
        preset: how much memory the training takes; see bnn.presets.
        gradient: what becomes of the gradient of each binary product: exact leaves it to the preset; bifurcated has 8
            bits, and 16 in the weight's product; int4 has 4 and 8; fp8 and fp6 are floats of a fitting format; pruned
            makes 85 % of it zero; one_bit keeps some examples in 4 bits, 1 on average.
        norm: what takes the place of every batch norm.
        head: a learned classifier, or rows of a Hadamard matrix.
        weights: whether latent weights are clipped, or each filter keeps its norm; of the preset standard.
        optimizer: the preset's; boolean is B+LD, with gradients in mean magnitudes of their layer (boolean_relative),
            without their magnitude (boolean_sign), its leak (boolean_no_leak) or the whole range of its hysteresis
            (boolean_narrow); bep sends signs of errors back. All but the first take the place of the preset.
        suppression: of what one batch alone asks for: the median of each weight's gradients in the last three batches
            (rm3), or a step every third batch (m3); of the preset standard. It is for optimizers without momentum.
        ghost_batch: largest number of examples that batch norms see at once; null takes the preset's own.
        epochs: passes over the training images.
        batch_size: images a step.
        rate_of_batch: size of batch that the learning rate is for; the rate goes with the root of the size. Null leaves
            it.
        learning_rate: at the start; a cosine takes it to 0. By default the preset's or the method's own. Of B+LD and
            bep it is that of norms and real layers.
        rate: of the binary weights' accumulators under B+LD and bep, at the start; by default the method's own.
        motion: whether to add how far weights have gone from their start; it takes 4 bytes a weight.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the augmentation, the roundings and the validation split.
    """

    def build() -> nn.Module:
        network = _MODELS[model](input_shape=data.image_shape, classes=data.num_classes, **_stores(weights))
        if head == "hadamard":
            replace_classifier(network)
        if norm != "batch":
            replace_norms(network, _NORMS[norm])
        return network

    if optimizer == "preset":
        if rate is not None:
            raise RecipeError("--rate is of accumulators: name a method with --optimizer, or take --learning-rate")
        step = prepare(preset, build, input_shape=data.image_shape, learning_rate=learning_rate, seed=seed)
    else:
        rates = {"learning_rate": learning_rate, "rate": rate}
        step = _OPTIMIZERS[optimizer](build, seed=seed, **{k: v for k, v in rates.items() if v is not None})
    generators = dict(step.generators)
    if gradient != "exact":
        generators["gradients"] = torch.Generator().manual_seed(seed)
        quantizer = _GRADIENTS[gradient](generators["gradients"])
        quantize_gradients(step.model, lambda layer: quantizer)
    if rate_of_batch is not None:
        for group in step.optimizer.param_groups:
            group["lr"] = square_root_rate(group["lr"], batch_size=batch_size, of_batch_size=rate_of_batch)
    callbacks: list[Callback] = [GradientMeter(), AccumulatorMeter()]
    if motion:
        callbacks.append(LatentMotion(step.model))
    if suppression != "none":
        callbacks.append(MedianGradient(rolling=suppression == "rm3"))
    augment: list[Augmentation] = [RandomCrop(padding=4), RandomFlip()] if data.name == "cifar10" else []
    return Run(
        **vars(step) | {"generators": generators, "slice_size": ghost_batch or step.slice_size},
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=augment,
        callbacks=callbacks,
    )


def _stores(weights: str) -> dict[str, Callable[..., LatentStore]]:
    return {"store": partial(LatentStore, quantizer=BoundedSign())} if weights == "bounded" else {}
