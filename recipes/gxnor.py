"""GXNOR-Net: ternary weights that are trained without a copy of more bits, and ternary activations."""

from pathlib import Path

from bnn.cost.meters.gated_xnor import GatedXnorMeter
from bnn.data import Dataset, load_dataset
from bnn.methods.gxnor import GxnorDataset, GxnorModel, gxnor_augmentation, gxnor_step
from bnn.training import Precision, Run, warmup_cosine


def data(
    *, data_dir: Path, dataset: GxnorDataset = "mnist", train_images: int | None = None, download: bool = False
) -> Dataset:
    """Loads the data set.

    Args:
        data_dir: folder of torchvision's files; for CIFAR-10 also an image folder with train/CLASS and test/CLASS.
        dataset: MNIST has a network of its own, CIFAR-10 and SVHN share one.
        train_images: take this many of the training images, at random; null takes all.
        download: fetch the data into data_dir if they are not there.
    """
    return load_dataset(dataset, data_dir, download=download, train_images=train_images)


def recipe(
    data: Dataset,
    *,
    dataset: GxnorDataset = "mnist",
    model: GxnorModel | None = None,
    epochs: int = 100,
    batch_size: int = 100,
    learning_rate: float = 1e-2,
    momentum: float = 0.997,
    m: float | None = 3.0,
    shift: float = 0.0,
    precision: Precision = "float32",
    validation: float = 0.1,
    seed: int = 0,
) -> Run:
    """Trains a ternary convolutional network by discrete state transitions.

    Network, activation and m are those of Deng et al., arXiv 1705.09283, for each data set; Adam's mean is longer, the
    batches are smaller, the loss is the cross-entropy and the learning rate follows a cosine. Images of CIFAR-10 and
    SVHN are cropped at random, and those of CIFAR-10 mirrored. A weight takes two bits in training as well; Adam's two
    moments come on top. mtj.py is the same on simulated junctions.

    Args:
        data: see the function `data`.
        dataset: MNIST has a network of its own, CIFAR-10 and SVHN share one.
        model: another network than that; of CIFAR-10, gxnor_cnn takes an eightieth of the products of gxnor_vgg.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam at the start; a cosine takes it to 0.
        momentum: decay of Adam's mean; see DST for why it is long.
        m: steepness of the tanh that gives the probability of a transition; null keeps every step on average.
        shift: largest random shift of MNIST's training images, as a part of their height and width.
        precision: of the products; levels are exact in bfloat16, too, which is far faster on some processors.
        validation: part of the training images to hold out.
        seed: of the weights, the transitions, the order of the images, the augmentation and the validation split.
    """
    augment = gxnor_augmentation(dataset, shift=shift)
    step = gxnor_step(
        data, model=model, learning_rate=learning_rate, momentum=momentum, m=m, precision=precision, seed=seed
    )
    return Run(
        **vars(step),
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        schedule=warmup_cosine(epochs),
        augment=augment,
        callbacks=[GatedXnorMeter()],
    )
