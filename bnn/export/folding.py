"""Steps folded into one another: pooling and elementwise operations into products, signs into thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bnn.export.program import (
    AddValue,
    Elementwise,
    Map,
    MaxPool,
    PReLU,
    Product,
    Program,
    Rounded,
    Signs,
    Step,
    Thresholds,
    applied,
    reads,
)

# Sums of a real product are smaller; the largest float16 where they are rounded to that.
_LARGEST = 2.0**60
_LARGEST_FLOAT16 = 65504.0
_LARGEST_WHOLE_FLOAT16 = 2048  # up to which it has every whole number


def folded(program: Program) -> Program:
    """The same program in fewer steps, each of which gives what it gave before, to the bit."""
    uses = Counter(value.number for step in program.steps for value in reads(step))
    steps: list[Step] = []
    left = list(program.steps)
    while left:
        step = left.pop(0)
        while isinstance(step, Product) and uses[step.out.number] == 1:
            follower = next(other for other in left if any(value == step.out for value in reads(other)))
            made = {other.out.number for other in steps} | {program.input.number}
            absorbed = _absorbed(step, follower, made)
            if absorbed is None:
                break
            left.remove(follower)
            step = absorbed
        steps.append(step)
    return replace(program, steps=tuple(steps))


def _absorbed(product: Product, step: Step, made: set[int]) -> Product | None:
    """The product with the step that follows it; None where they stay two."""
    if isinstance(product.tail, Thresholds) or step.x != product.out:
        return None
    if isinstance(step, MaxPool) and not product.tail and product.pool is None:
        return replace(product, out=step.out, pool=step.window)
    if isinstance(step, Map) and all(value.number in made for value in reads(step) if value != product.out):
        others = [operation.value for operation in step.operations if isinstance(operation, AddValue)]
        if product.out not in others:
            return replace(product, out=step.out, tail=(*product.tail, *_that_change(product, step.operations)))
    if isinstance(step, Signs):
        return _with_thresholds(replace(product, out=step.out), product.tail)
    return None


def _that_change(product: Product, operations: Sequence[Elementwise]) -> Sequence[Elementwise]:
    """The operations without a rounding of sums to float16 that are whole numbers which it has."""
    is_exact = product.is_binary and product.taps <= _LARGEST_WHOLE_FLOAT16 and not product.tail
    return operations[1:] if is_exact and operations[:1] == (Rounded("float16"),) else operations


def _with_thresholds(product: Product, operations: Sequence[Elementwise]) -> Product | None:
    """The product with the place where the sign of monotone operations changes; None where they are not monotone.

    The place is found by evaluating them.

    Each operation is rounded, and rounding is monotone, too: there is one place where the sign changes. A formula
    would give another one where a rounding decides.
    """
    if any(isinstance(o, AddValue) or (isinstance(o, PReLU) and bool((o.slope < 0).any())) for o in operations):
        return None
    channels = len(product.weight)
    if product.is_binary:
        low, high = _ends(channels, product.taps)

        def value(number: Tensor) -> Tensor:
            return number.float()
    else:
        to_float16 = any(isinstance(o, Rounded) and o.dtype == "float16" for o in operations)
        low, high = _ends(channels, int(_ordered(torch.tensor(_LARGEST_FLOAT16 if to_float16 else _LARGEST))))
        value = _unordered

    def sign(number: Tensor) -> Tensor:
        y = applied(operations, value(number))
        if y.isnan().any():
            raise ArithmeticError(
                "a factor or term of its norm is no finite number, or its product goes beyond its dtype"
            )
        return y >= 0

    at_low, at_high = sign(low), sign(high)
    # A channel whose sign never changes is one whose bit is always 1, inverted or not.
    constant = at_low == at_high
    inverted = torch.where(constant, ~at_low, at_low)
    below, least = low.clone(), torch.where(constant, low, high)
    while bool((searching := ~constant & (least - below > 1)).any()):
        middle = below + (least - below) // 2
        beyond = sign(middle) ^ inverted
        least = torch.where(searching & beyond, middle, least)
        below = torch.where(searching & ~beyond, middle, below)
    weight = product.weight
    if product.pool is None:
        # A sum below its threshold is a negative sum above that of the other sign.
        least = torch.where(inverted, 1 - least, least)
        weight = _turned(weight, inverted)
        inverted = torch.zeros_like(inverted)
    return replace(product, weight=weight, tail=Thresholds(least if product.is_binary else value(least), inverted))


def _turned(weight: Tensor, which: Tensor) -> Tensor:
    by_outputs = which.view(-1, 1, 1, 1)
    return weight ^ by_outputs if weight.dtype is torch.bool else torch.where(by_outputs, -weight, weight)


def _ends(channels: int, largest: int) -> tuple[Tensor, Tensor]:
    return torch.full((channels,), -largest), torch.full((channels,), largest)


def _ordered(value: Tensor) -> Tensor:
    """The numbers of floats in their order: float32 to int64, 0 to 0."""
    bits = value.view(torch.int32).long()
    return torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def _unordered(number: Tensor) -> Tensor:
    """The floats of such numbers."""
    bits = torch.where(number >= 0, number, -number | 0x80000000)
    return torch.where(bits >= 1 << 31, bits - (1 << 32), bits).int().view(torch.float32)
