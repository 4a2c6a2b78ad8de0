"""Binary residual networks on CIFAR-10: ReCU, OvSW, and what either adds to the plain sign."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bnn.cost.meters.weights import WeightMeter
from bnn.data import Dataset, RandomCrop, RandomFlip, load_dataset
from bnn.methods import AdaptiveGradientScaling, SilenceAwareDecay, TauSchedule
from bnn.models import initialize, resnet18, resnet20, vgg_small
from bnn.models.resnet_cifar import resnet8
from bnn.presets import Preset, prepare
from bnn.quantizers import ApproxSign, Quantizer, ReCU, Sign
from bnn.training import Callback, Precision, Run, TrainingStep, warmup_cosine
from bnn.weights import LatentStore

_MODELS = {
    "resnet18": resnet18,
    "resnet20": resnet20,
    "vgg_small": vgg_small,
    "vgg_small_quarter": partial(vgg_small, width=32),
    "resnet8": resnet8,
}

Variant = Literal[
    "sign",
    "standardized",
    "recu",
    "recu_pass",
    "recu_project",
    "recu_alpha",
    "recu_empirical",
    "recu_filter",
    "gradient_scaling",
    "silence_decay",
    "ovsw",
    "recu_ovsw",
]
_OPTIONS_OF_RECU: dict[str, dict[str, str]] = {
    "recu": {},
    "recu_pass": {"tail": "pass"},
    "recu_project": {"tail": "project"},
    "recu_alpha": {"scale": "mean"},
    "recu_empirical": {"quantile": "empirical"},
    "recu_filter": {"scope": "filter"},
    "recu_ovsw": {},
}
# Of presets, for weights in ReCU's bounds (benchmarks/records/accuracy.md).
_RATES_OF_RECU: dict[Preset, float] = {"edge": 3e-2, "edge-min": 0.1}


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
    model: Literal["resnet18", "resnet20", "vgg_small", "vgg_small_quarter", "resnet8"] = "resnet20",
    variant: Variant = "recu",
    preset: Preset = "standard",
    normalize_inputs: bool = False,
    epochs: int = 600,
    batch_size: int = 256,
    learning_rate: float | None = None,
    weight_decay: float = 5e-4,
    warmup_epochs: int = 5,
    tau_start: float = 0.85,
    tau_end: float = 0.99,
    gradient_ratio: float = 0.04,
    silence_decay: float = 9e-4,
    precision: Precision = "float32",
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a binary network with ReCU, OvSW or the plain sign on CIFAR-10.

    Settings are those of the public code of ReCU, Xu et al., arXiv 2103.12369, which OvSW, Xiang et al., arXiv
    2407.05257, shares: SGD with momentum 0.9 and weight decay on every parameter, 5 epochs of warm-up and a cosine,
    crops and flips, the first and last layer real. A part of the training images is held out for validation, which
    the public code does not do. Metrics tell what becomes of the weights (bnn.cost.meters.weights).

    Args:
        data: see the function `data`.
        model: the network; resnet8 and vgg_small_quarter, a quarter of vgg_small's channels, are for quick comparisons.
        variant: how latent weights become signs: sign passes every gradient; standardized is ReCU without its clamp;
            recu is the public code; recu_pass lets gradients through the clamp, recu_project moves latent weights
            to the bound as well, recu_alpha scales by the mean of the clamped weight, recu_empirical takes the true
            quantile, recu_filter a bound for each filter; gradient_scaling and silence_decay are the two halves of ovsw
            on sign; recu_ovsw is both methods together.
        preset: how much memory the training takes: standard is float32 with the SGD of the public code; for edge and
            edge-min see bnn.presets.
        normalize_inputs: whether the window of the gradient of each binary convolution's input is as wide as the
            standard deviation of the example, as in the public code of ReCU.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: after the warm-up; a cosine takes it to 0. By default 0.1; of edge 0.03 with ReCU and of edge-min
            0.1; or else the preset's own.
        weight_decay: of every parameter; of the preset standard.
        warmup_epochs: in which the learning rate rises from 0; of short runs, a quarter of the epochs at most.
        tau_start: ReCU's quantile in the first epoch.
        tau_end: ReCU's quantile at the end.
        gradient_ratio: OvSW's least ratio of a filter's gradient and weights.
        silence_decay: OvSW's decay of weights that do not change their sign.
        precision: of the products in training and evaluation; bfloat16 is several times as fast on some processors.
        validation: part of the training images to hold out.
        seed: of the weights, the order of the images, the augmentation and the validation split.
    """
    callbacks: list[Callback] = [WeightMeter()]
    quantizer: Quantizer = Sign(window=float("inf"))
    if variant == "standardized":
        quantizer = ReCU(tau=1.0)
    elif variant in _OPTIONS_OF_RECU:
        quantizer = ReCU(tau=tau_start, **_OPTIONS_OF_RECU[variant])
        callbacks.append(TauSchedule(start=tau_start, end=tau_end))
    if variant in ("gradient_scaling", "ovsw", "recu_ovsw"):
        callbacks.append(AdaptiveGradientScaling(ratio=gradient_ratio))
    if variant in ("silence_decay", "ovsw", "recu_ovsw"):
        callbacks.append(SilenceAwareDecay(decay=silence_decay))

    def build() -> nn.Module:
        return _MODELS[model](
            input_shape=data.image_shape,
            classes=data.num_classes,
            store=partial(LatentStore, quantizer=quantizer),
            input_quantizer=ApproxSign(normalize=normalize_inputs),
        )

    if preset == "standard":
        network = build()
        initialize(network, generator=torch.Generator().manual_seed(seed))
        rate = 0.1 if learning_rate is None else learning_rate
        optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay)
        step = TrainingStep(model=network, optimizer=optimizer)
    else:
        of_recu = _RATES_OF_RECU.get(preset) if variant in _OPTIONS_OF_RECU else None
        rate = of_recu if learning_rate is None else learning_rate
        step = prepare(preset, build, input_shape=data.image_shape, learning_rate=rate, seed=seed)
    return Run(
        **vars(step) | {"precision": precision},
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs, warmup_epochs=min(warmup_epochs, epochs / 4)),
        augment=[RandomCrop(padding=4), RandomFlip()],
        callbacks=callbacks,
    )
