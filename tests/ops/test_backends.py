"""A backend from outside of the package: kernels in the place of those that are there, or beside them."""

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bnn.ops import OPERATIONS, Backend
from tests.contracts import randn
from tests.ops.comparison import random_bits

bnn = torch.ops.bnn


def counting(calls: Counter[str]) -> Backend:
    """A backend that counts the calls of every operation on the CPU and passes them on."""
    backend = Backend("AutogradCPU")

    def count(name: str) -> Callable[..., Any]:
        def kernel(*arguments: Any) -> Any:
            calls[name] += 1
            with torch._C._AutoDispatchBelowAutograd():
                return getattr(bnn, name)(*arguments)

        kernel.__name__ = name
        return kernel

    for name in OPERATIONS:
        backend.kernel(count(name))
    return backend


def test_a_backend_may_stand_beside_the_kernels_under_another_key() -> None:
    calls: Counter[str] = Counter()
    bits, expected = random_bits(3, 20, 0), bnn.linear(random_bits(3, 20, 0), random_bits(2, 20, 1), 20)
    backend = counting(calls)
    assert torch.equal(bnn.linear(bits, random_bits(2, 20, 1), 20), expected)
    bnn.pack(randn(2, 9))
    bnn.pack(randn(2, 9))
    assert calls == {"linear": 1, "pack": 2}
    del backend
    gc.collect()
    bnn.pack(randn(2, 9))
    assert calls["pack"] == 2


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")  # it is meant to replace one
def test_a_kernel_replaces_another_for_as_long_as_its_backend_lives() -> None:
    backend = Backend("CPU")

    @backend.kernel
    def linear(x: torch.Tensor, weight: torch.Tensor, features: int) -> torch.Tensor:
        return torch.full((len(x), len(weight)), 7.0)

    operands = (random_bits(3, 20, 0), random_bits(2, 20, 1), 20)
    assert (bnn.linear(*operands) == 7).all()
    del backend, linear
    gc.collect()
    assert torch.equal(bnn.linear(*operands), OPERATIONS["linear"](*operands))


def test_a_kernel_of_no_operation_is_refused() -> None:
    def transform(x: torch.Tensor) -> torch.Tensor:
        return x

    with pytest.raises(ValueError, match="no operation 'transform'"):
        Backend("CPU").kernel(transform)
