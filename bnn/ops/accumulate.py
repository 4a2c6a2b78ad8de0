"""The step of 8-bit accumulators by the signs of their gradient: schema, specification and native kernel."""

import math

import torch
from torch import Tensor

from bnn.ops import cpu, packed_bytes
from bnn.ops.cpu import _isa_and_threads
from bnn.ops.int8 import hash_key, random_bits
from bnn.ops.reference import unpack

# int8 [rows, n], packed [rows, ceil(n/8)]; changes the codes
torch.library.define(
    "bnn::step_by_signs", "(Tensor(a!) codes, Tensor signs, float step, float hysteresis, int seed) -> ()"
)


def step_by_signs(codes: Tensor, signs: Tensor, step: float, hysteresis: float, seed: int) -> None:
    """codes = clamp(codes - step sign), where the step is rounded at random to whole codes and right on average.

    A code whose sign changes, from negative to not or back, goes at least `hysteresis`, rounded up, away from 0.

    Element i in the order of memory moves by one code more than floor(step) where its random number of 16 bits is
    below 2^16 times the fraction of the step, rounded up. That number is the lower half (of an even i) or the upper
    half of the hash of `seed` and i // 2.

    Args:
        codes: int8 [rows, n], contiguous; changed in place and kept within -128..127.
        signs: packed [rows, ceil(n / 8)]: the signs of the gradient.
        step: in codes, at least 0.
        hysteresis: in codes, in 0..127.
        seed: a new one for every step.
    """
    whole, limit, beyond = _check(codes, signs, step, hysteresis)
    words = random_bits(seed, (codes.numel() + 1) // 2, codes.device)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=1).flatten()[: codes.numel()]
    moves = (whole + (halves < limit)).view_as(codes) * unpack(signs, codes.shape[1], torch.int32)
    moved = codes.int() - moves
    away = torch.where(moved < 0, moved.clamp(max=-beyond), moved.clamp(min=beyond))
    codes.copy_(torch.where((moved < 0) != (codes < 0), away, moved).clamp_(-128, 127))


def _step_by_signs_native(codes: Tensor, signs: Tensor, step: float, hysteresis: float, seed: int) -> None:
    factors = _check(codes, signs, step, hysteresis)
    pointers = (codes.data_ptr(), signs.data_ptr())
    cpu._native.step_by_signs(*_isa_and_threads(), *pointers, *codes.shape, *factors, hash_key(seed))


def _check(codes: Tensor, signs: Tensor, step: float, hysteresis: float) -> tuple[int, int, int]:
    """Whole codes of a step, the rest in 65,536ths, rounded up, and the hysteresis in codes."""
    if codes.dtype is not torch.int8 or codes.dim() != 2 or not codes.is_contiguous():
        raise ValueError(f"codes are a contiguous int8 [rows, n], got {codes.dtype} {list(codes.shape)}")
    if signs.dtype is not torch.uint8 or list(signs.shape) != [len(codes), packed_bytes(codes.shape[1])]:
        raise ValueError(f"signs of codes {list(codes.shape)} are packed, got {signs.dtype} {list(signs.shape)}")
    if not 0 <= step < math.inf:
        raise ValueError(f"a step is finite and at least 0, got {step}")
    if not 0 <= hysteresis <= 127:
        raise ValueError(f"a hysteresis lies in 0..127 codes, got {hysteresis}")
    whole = min(math.floor(step), 256)  # further than from one end to the other
    return whole, math.ceil((step - math.floor(step)) * 65536), math.ceil(hysteresis)


torch.library.impl("bnn::step_by_signs", "CompositeExplicitAutograd")(step_by_signs)
if cpu.instruction_set() != "reference":
    torch.library.impl("bnn::step_by_signs", "CPU")(_step_by_signs_native)
