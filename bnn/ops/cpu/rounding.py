"""Rounding of gradients on the CPU."""

import struct

import torch
from torch import Tensor

from bnn.ops import rounding as specification
from bnn.ops.cpu.native import call, kernel
from bnn.ops.rounding import dense, scale_of
from bnn.random.lowbias32 import hash_key


@kernel
def quantize_integers(grad: Tensor, largest: int, seed: int) -> tuple[Tensor, Tensor]:
    if grad.dtype not in (torch.bfloat16, torch.float32):
        return specification.quantize_integers(grad, largest, seed)
    grad, q = dense(grad)
    n, itemsize = grad.numel(), grad.itemsize
    bits = call("largest_magnitude", grad, n, itemsize)
    (bound,) = struct.unpack("f", struct.pack("I", bits << 16 if itemsize == 2 else bits))
    scale, inverse = scale_of(torch.tensor(bound), largest)
    call("quantize_integers", grad, q, n, itemsize, inverse.item(), largest, hash_key(seed))
    return q, scale
