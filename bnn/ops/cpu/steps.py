"""Steps of optimizers by a gradient or its signs on the CPU."""

from typing import Any

from torch import Tensor

from bnn.ops.cpu.native import call, kernel
from bnn.ops.steps import adam_factors, check_rows, code_factors, not_finite
from bnn.random.lowbias32 import hash_key


@kernel
def step_by_signs(codes: Tensor, signs: Tensor, step_codes: float, hysteresis_codes: float, seed: int) -> None:
    factors = code_factors(codes, signs, step_codes, hysteresis_codes)
    call("step_by_signs", codes, signs, *codes.shape, *factors, hash_key(seed))


@kernel
def adam_by_rows(codes: Tensor, squares: Tensor, gradient: Tensor, *options: Any) -> None:
    *numbers, seed = options
    step_codes, decay, eps, _, _, step = numbers
    factors = (step_codes, decay, 1 - decay**step, eps, *check_rows(codes, squares, gradient, *numbers))
    if not call("adam_by_rows", codes, squares, gradient, *codes.shape, *factors, hash_key(seed)):
        raise not_finite()


@kernel
def adam_by_signs(weight: Tensor, mean: Tensor, root: Tensor, signs: Tensor, *options: Any) -> None:
    _adam("adam_by_signs", weight, mean, root, signs, *options)


@kernel
def adam_by_values(weight: Tensor, mean: Tensor, root: Tensor, gradient: Tensor, *options: Any) -> None:
    _adam("adam_by_values", weight, mean, root, gradient, *options)


def _adam(name: str, weight: Tensor, mean: Tensor, root: Tensor, gradient: Tensor, *options: Any) -> None:
    *numbers, seed = options
    factors = adam_factors(weight, mean, root, gradient, *numbers)
    call(name, weight, mean, root, gradient, *weight.shape, *factors, hash_key(seed))
