"""GXNOR-Net: networks of ternary weights and activations whose weights step by discrete state transitions.

Source: Deng et al. 2018, arXiv 1705.09283.
"""

from typing import Literal

import torch

from bnn.data import Augmentation, Dataset, RandomCrop, RandomFlip, RandomShift
from bnn.errors import RecipeError
from bnn.models import gxnor_cnn, gxnor_vgg, initialize
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.training import Precision, TrainingStep
from bnn.weights import DiscreteStore, StoreFactory

GxnorDataset = Literal["mnist", "cifar10", "svhn"]
"""The data sets of the paper."""
GxnorModel = Literal["gxnor_cnn", "gxnor_vgg"]
"""The networks of the paper."""


def gxnor_step(
    data: Dataset,
    *,
    model: GxnorModel | None = None,
    store: StoreFactory = DiscreteStore,
    learning_rate: float = 1e-2,
    momentum: float = 0.997,
    m: float | None = 3.0,
    precision: Precision = "float32",
    seed: int = 0,
) -> TrainingStep:
    """The network of a data set and its steps: the paper's, but for Adam's mean, which is longer (see `DST`).

    Args:
        data: what the network is for.
        model: its network; by default `gxnor_cnn` for MNIST and `gxnor_vgg` for all others, as in the paper.
        store: makes the weights' stores, such as `hwsim.store.DeviceStore`.
        learning_rate: of Adam.
        momentum: decay of Adam's mean.
        m: steepness of the tanh that gives the probability of a transition; None keeps every step on average.
        precision: of the products.
        seed: of the weights and the transitions.
    """
    networks = {"gxnor_cnn": gxnor_cnn, "gxnor_vgg": gxnor_vgg}
    build = networks[model or ("gxnor_cnn" if data.name == "mnist" else "gxnor_vgg")]
    channels, height, width = data.image_shape
    network = build(input_shape=(channels, height, width), classes=data.num_classes, store=store)
    initialize(network, generator=torch.Generator().manual_seed(seed))
    adam = Adam(network.parameters(), lr=learning_rate, betas=(momentum, 0.999), seed=seed)
    return TrainingStep(model=network, optimizer=DST(adam, m=m), precision=precision)


def gxnor_augmentation(dataset: GxnorDataset, *, shift: float = 0.0) -> list[Augmentation]:
    """Random shifts of MNIST, if any; crops of CIFAR-10 and SVHN, and flips of CIFAR-10, which has no digits.

    Args:
        dataset: what the images are of.
        shift: largest shift of MNIST's images, as a part of their height and width.

    Raises:
        RecipeError: a shift is asked of other images.
    """
    if dataset == "mnist":
        return [RandomShift(fraction=shift)] if shift else []
    if shift:
        raise RecipeError(f"only images of mnist are shifted, those of {dataset} are cropped at random: leave shift 0")
    return [RandomCrop(padding=4), RandomFlip()] if dataset == "cifar10" else [RandomCrop(padding=4)]
