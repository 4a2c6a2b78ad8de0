"""A backend from outside of the package: kernels in the place of those that are there, or beside them."""

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from bnn.ops import OPERATIONS, Backend, functions
from bnn.ops.operation import is_plain
from tests.contracts import bits_of, randn
from tests.ops.comparison import needs_native, random_bits

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


# --- the package's own calls, which leave torch out where nothing of it would see them


def seen_by_the_profiler(run: Callable[[], Any]) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return {event.key for event in profile.key_averages()}


def test_other_backends_and_the_profiler_see_calls_of_the_package():
    x, calls = randn(3, 20), Counter[str]()
    with torch.no_grad():
        expected = functions.pack(x)
        backend = counting(calls)
        assert not is_plain(x)
        assert torch.equal(functions.pack(x), expected)
        assert calls == {"pack": 1}
        del backend
        gc.collect()
        assert is_plain(x)
        assert "bnn::pack" in seen_by_the_profiler(lambda: functions.pack(x))
        assert torch.equal(functions.pack(x), bnn.pack(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
def test_plain_tensors_are_those_of_the_cpu_outside_of_autograd_and_of_modes():
    x, seen = randn(3, 20), []

    def see(x: torch.Tensor) -> torch.Tensor:
        seen.append(is_plain(x))
        return x

    assert not is_plain(x)
    with torch.no_grad():
        assert is_plain(x)
        torch.vmap(see)(x)
        torch.jit.trace(see, x, check_trace=False)
        with torch.device("cpu"):  # a mode of torch's functions
            see(x)
        with FakeTensorMode():
            see(torch.empty(3, 20))
        assert not any(seen)
        assert len(seen) >= 4
        assert is_plain(x)
        assert not is_plain(x.to("meta"))
        assert not is_plain(bits_of(3, 20))
        assert not is_plain(torch.nn.Parameter(x))
        assert functions.pack(x.to("meta")).is_meta


@needs_native
@torch.no_grad()
def test_what_a_call_writes_is_known_to_have_changed():
    y, vector = randn(2, 5, 3, 3).contiguous(memory_format=torch.channels_last), torch.ones(5)
    version = y._version
    functions.norm_clamp_(y, vector, vector, None, -1.0, 1.0)
    assert y._version == version + 1
    assert vector._version == 0
