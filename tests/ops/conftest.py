"""Instruction sets and numbers of threads, for the tests of the native kernels."""

from collections.abc import Iterator

import pytest
import torch

from bnn.ops.cpu import native

# Those that this CPU lacks are named by tests/ops/cpu/test_native.py, once.
AVAILABLE = [] if native._extension is None else native._extension.instruction_sets()


@pytest.fixture(params=AVAILABLE or ["none"], scope="module")
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces an instruction set."""
    if not AVAILABLE:
        pytest.skip("the native kernels are not built or not chosen")
    before, native._instruction_set = native._instruction_set, request.param
    yield request.param
    native._instruction_set = before


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
