"""The step of 8-bit accumulators by the signs of their gradient: schema, specification and native kernel."""

import math

import torch
from torch import Tensor

from bnn.ops import cpu, packed_bytes
from bnn.ops.cpu import _isa_and_threads
from bnn.ops.int8 import hash_key, random_bits
from bnn.ops.reference import unpack

# int8 [rows, n], packed [rows, ceil(n/8)]; changes the codes
torch.library.define("bnn::step_by_signs", "(Tensor(a!) codes, Tensor signs, float step, int seed) -> ()")


def step_by_signs(codes: Tensor, signs: Tensor, step: float, seed: int) -> None:
    """codes = clamp(codes - step sign), where the step is rounded at random to whole codes and right on average.

    Element i in the order of memory moves by one code more than floor(step) where its random number of 16 bits is
    below 2^16 times the fraction of the step, rounded up. That number is the lower half (of an even i) or the upper
    half of the hash of `seed` and i // 2.

    Args:
        codes: int8 [rows, n], contiguous; changed in place and kept within -128..127.
        signs: packed [rows, ceil(n / 8)]: the signs of the gradient.
        step: in codes, at least 0.
        seed: a new one for every step.
    """
    whole, limit = _check(codes, signs, step)
    words = random_bits(seed, (codes.numel() + 1) // 2, codes.device)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=1).flatten()[: codes.numel()]
    moves = (whole + (halves < limit)).view_as(codes) * unpack(signs, codes.shape[1], torch.int32)
    codes.copy_((codes.int() - moves).clamp_(-128, 127))


def _step_by_signs_native(codes: Tensor, signs: Tensor, step: float, seed: int) -> None:
    whole, limit = _check(codes, signs, step)
    pointers = (codes.data_ptr(), signs.data_ptr())
    cpu._native.step_by_signs(*_isa_and_threads(), *pointers, *codes.shape, whole, limit, hash_key(seed))


def _check(codes: Tensor, signs: Tensor, step: float) -> tuple[int, int]:
    """Whole codes of a step, and the rest in 65,536ths, rounded up."""
    if codes.dtype is not torch.int8 or codes.dim() != 2 or not codes.is_contiguous():
        raise ValueError(f"codes are a contiguous int8 [rows, n], got {codes.dtype} {list(codes.shape)}")
    if signs.dtype is not torch.uint8 or list(signs.shape) != [len(codes), packed_bytes(codes.shape[1])]:
        raise ValueError(f"signs of codes {list(codes.shape)} are packed, got {signs.dtype} {list(signs.shape)}")
    if not 0 <= step < math.inf:
        raise ValueError(f"a step is finite and at least 0, got {step}")
    whole = min(math.floor(step), 256)  # further than from one end to the other
    return whole, math.ceil((step - math.floor(step)) * 65536)


torch.library.impl("bnn::step_by_signs", "CompositeExplicitAutograd")(step_by_signs)
if cpu.instruction_set() != "reference":
    torch.library.impl("bnn::step_by_signs", "CPU")(_step_by_signs_native)
