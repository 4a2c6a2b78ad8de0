"""The networks of larq-zoo 2.4.0, what it says of them, and the files of weights that it has published."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from bnn.models.zoo.alexnets import binary_alexnet, dorefanet, xnornet
from bnn.models.zoo.densenets import (
    binary_densenet28,
    binary_densenet37,
    binary_densenet37_dilated,
    binary_densenet45,
)
from bnn.models.zoo.meliusnet import meliusnet22
from bnn.models.zoo.quicknets import quicknet, quicknet_large, quicknet_small
from bnn.models.zoo.real_to_binary import real_to_binary_net
from bnn.models.zoo.residual import binary_resnet_e18, birealnet

_RELEASES = "https://github.com/larq/zoo/releases/download/"


@dataclass(frozen=True)
class Released:
    """A network of larq-zoo for images of 224x224 and 1000 classes."""

    build: Callable[..., nn.Sequential]
    larq_name: str
    """Its class there."""
    top_1: float
    """Accuracy on ImageNet's validation images in percent, as larq-zoo's documentation has it."""
    top_5: float
    parameters: int
    """Trained values and running statistics, as Keras counts them; those of a fixed blur, too."""
    binary_weights: int
    low_bit_macs: int
    """Multiply-accumulates of an image with inputs of 1 bit, of DoReFa-Net 2, as larq counts them."""
    real_macs: int
    """Other multiply-accumulates of an image; those of a fixed blur, too."""
    file: str
    """Release and name of the file of weights."""
    sha256: str

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.build.__name__

    @property
    def url(self) -> str:
        """Where the file of weights is."""
        return _RELEASES + self.file


_ALL = (
    Released(
        quicknet_small,
        "QuickNetSmall",
        top_1=59.4,
        top_5=81.8,
        parameters=12_664_344,
        binary_weights=11_980_800,
        low_bit_macs=1_156_055_040,
        real_macs=15_941_120,
        file="quicknet-v1.0/quicknet_small_weights.h5",
        sha256="1ac3b07df7f5a911dd0b49febb2486428ddf1ca130297c403815dfae5a1c71a2",
    ),
    Released(
        quicknet,
        "QuickNet",
        top_1=63.3,
        top_5=84.6,
        parameters=13_243_720,
        binary_weights=12_533_760,
        low_bit_macs=1_849_688_064,
        real_macs=29_651_712,
        file="quicknet-v1.0/quicknet_weights.h5",
        sha256="8aba9e4e5f8d342faef04a0b2ae8e562da57dbb7d15162e8b3e091c951ba756c",
    ),
    Released(
        quicknet_large,
        "QuickNetLarge",
        top_1=66.9,
        top_5=87.0,
        parameters=23_359_304,
        binary_weights=22_634_496,
        low_bit_macs=3_699_376_128,
        real_macs=29_651_712,
        file="quicknet-v1.0/quicknet_large_weights.h5",
        sha256="c5158e8a59147b31370becd937825f4db8a5cdf308314874f678f596629be45c",
    ),
    Released(
        binary_resnet_e18,
        "BinaryResNetE18",
        top_1=58.32,
        top_5=80.79,
        parameters=11_699_368,
        binary_weights=10_985_472,
        low_bit_macs=1_676_279_808,
        real_macs=137_793_536,
        file="resnet_e-v0.1.0/resnet_e_18_weights.h5",
        sha256="bde4a64d42c164a7b10a28debbe1ad5b287c499bc0247ecb00449e6e89f3bf5b",
    ),
    Released(
        birealnet,
        "BiRealNet",
        top_1=57.47,
        top_5=79.84,
        parameters=11_699_112,
        binary_weights=10_985_472,
        low_bit_macs=1_676_279_808,
        real_macs=137_793_536,
        file="birealnet-v0.3.0/birealnet_weights.h5",
        sha256="6e6efac1584fcd60dd024198c87f42eb53b5ec719a5ca1f527e1fe7e8b997117",
    ),
    Released(
        binary_alexnet,
        "BinaryAlexNet",
        top_1=36.3,
        top_5=61.53,
        parameters=61_859_192,
        binary_weights=61_827_776,
        low_bit_macs=768_512_000,
        real_macs=72_855_552,
        file="binary_alexnet-v0.3.0/binary_alexnet_weights.h5",
        sha256="7fc065c47c5c1d92389e0bb988ce6df6a4fa09d803b866e2ba648069d6652d63",
    ),
    Released(
        xnornet,
        "XNORNet",
        top_1=44.96,
        top_5=69.18,
        parameters=62_396_768,
        binary_weights=58_236_928,
        low_bit_macs=1_025_744_896,
        real_macs=113_379_328,
        file="xnornet-v0.2.0/xnornet_weights.h5",
        sha256="e6ba24f785655260ae76a2ef1fab520e3528243d9c8fac430299cd81dbeabe10",
    ),
    Released(
        dorefanet,
        "DoReFaNet",
        top_1=53.39,
        top_5=76.5,
        parameters=62_403_912,
        binary_weights=58_236_928,
        low_bit_macs=2_924_609_536,
        real_macs=125_028_352,
        file="dorefanet-v0.1.0/dorefanet_weights.h5",
        sha256="645d7839d574faa3eeeca28f3115773d75da3ab67ff6876b4de12d10245ecf6a",
    ),
    Released(
        binary_densenet28,
        "BinaryDenseNet28",
        top_1=60.91,
        top_5=82.83,
        parameters=5_150_504,
        binary_weights=4_202_496,
        low_bit_macs=3_587_383_296,
        real_macs=202_484_224,
        file="binary_densenet-v0.1.0/binary_densenet_28_weights.h5",
        sha256="21fe3ca03eed244df9c41a2219876fcf03e73800932ec96a3e2a76af4747ac53",
    ),
    Released(
        binary_densenet37,
        "BinaryDenseNet37",
        top_1=62.89,
        top_5=84.19,
        parameters=8_734_120,
        binary_weights=7_593_984,
        low_bit_macs=4_506_808_320,
        real_macs=199_738_368,
        file="binary_densenet-v0.1.0/binary_densenet_37_weights.h5",
        sha256="8056a5d52c3ed86a934893987d09a06f59a5166aa9bddcaedb050f111d0a7d76",
    ),
    Released(
        binary_densenet37_dilated,
        "BinaryDenseNet37Dilated",
        top_1=64.34,
        top_5=85.15,
        parameters=8_734_120,
        binary_weights=7_593_984,
        low_bit_macs=7_774_470_144,
        real_macs=452_625_408,
        file="binary_densenet-v0.1.0/binary_densenet_37_dilated_weights.h5",
        sha256="15c1bcd79b8dc22971382fbf79acf364a3f51049d0e584a11533e6fdbb7363d3",
    ),
    Released(
        binary_densenet45,
        "BinaryDenseNet45",
        top_1=64.59,
        top_5=85.21,
        parameters=13_939_240,
        binary_weights=12_349_440,
        low_bit_macs=6_430_556_160,
        real_macs=244_103_424,
        file="binary_densenet-v0.1.0/binary_densenet_45_weights.h5",
        sha256="d00a0d26fbd2dba1bfba8c0306c770f3aeea5c370e99f963bb239bd916f72c37",
    ),
    Released(
        meliusnet22,
        "MeliusNet22",
        top_1=62.4,
        top_5=83.9,
        parameters=6_969_672,
        binary_weights=6_119_424,
        low_bit_macs=4_624_220_160,
        real_macs=136_388_608,
        file="meliusnet22-v0.1.0/meliusnet22_weights.h5",
        sha256="c1ba85e8389ae326009665ec13331e49fc3df4d0f925fa8553e224f7362c18ed",
    ),
    Released(
        real_to_binary_net,
        "RealToBinaryNet",
        top_1=65.01,
        top_5=85.72,
        parameters=11_995_624,
        binary_weights=10_985_472,
        low_bit_macs=1_676_279_808,
        real_macs=138_087_936,
        file="r2b-v0.1.0/r2b_weights.h5",
        sha256="e8fd16ca1ab9810ac3835f24f5c62758a57bc32a615f73aaa50d382d2b9617e1",
    ),
)

RELEASED = {released.name: released for released in _ALL}
"""By the names of the functions."""
