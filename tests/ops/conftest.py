"""Instruction sets and numbers of threads, for the tests of the native kernels."""

from collections.abc import Iterator

import pytest
import torch

from bnn.ops.cpu import native


@pytest.fixture(params=["amx", "avx512", "avx2", "neon-dot", "neon", "generic"], scope="module")
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces an instruction set."""
    if native._extension is None:
        pytest.skip("the native kernels are not built or not chosen")
    if request.param not in native._extension.instruction_sets():
        pytest.skip(f"this CPU has no {request.param}")
    before, native._instruction_set = native._instruction_set, request.param
    yield request.param
    native._instruction_set = before


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
