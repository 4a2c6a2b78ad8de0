"""Data sets, augmentation and batches.

Images live decoded as uint8, in memory or in a file, and are augmented a batch at a time with tensor
operations; there are no worker processes.
"""

from bnn.data.arrays import Dataset, Split, hold_out
from bnn.data.augment import Augmentation, RandomCrop, RandomFlip, RandomShift
from bnn.data.batches import Batches
from bnn.data.bundled_digits import digits
from bnn.data.folder import image_folder
from bnn.data.idx_sets import fashion_mnist, mnist
from bnn.data.measurements import measurements
from bnn.data.named import load_dataset
from bnn.data.preprocessing import Preprocessing
from bnn.data.torchvision_sets import cifar10, cifar100, svhn

__all__ = [
    "Augmentation",
    "Batches",
    "Dataset",
    "Preprocessing",
    "RandomCrop",
    "RandomFlip",
    "RandomShift",
    "Split",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "hold_out",
    "image_folder",
    "load_dataset",
    "measurements",
    "mnist",
    "svhn",
]
