"""The fourteen networks of larq-zoo 2.4, and their weights from its files (see docs/zoo.md)."""

from bnn.models.zoo.alexnets import binary_alexnet, dorefanet, xnornet
from bnn.models.zoo.densenets import binary_densenet28, binary_densenet37, binary_densenet37_dilated, binary_densenet45
from bnn.models.zoo.meliusnet import meliusnet22
from bnn.models.zoo.quicknets import quicknet, quicknet_large, quicknet_small
from bnn.models.zoo.real_to_binary import real_to_binary_net
from bnn.models.zoo.released import RELEASED, Released
from bnn.models.zoo.residual import binary_resnet_e18, birealnet

__all__ = [
    "RELEASED",
    "Released",
    "binary_alexnet",
    "binary_densenet28",
    "binary_densenet37",
    "binary_densenet37_dilated",
    "binary_densenet45",
    "binary_resnet_e18",
    "birealnet",
    "dorefanet",
    "meliusnet22",
    "quicknet",
    "quicknet_large",
    "quicknet_small",
    "real_to_binary_net",
    "xnornet",
]
