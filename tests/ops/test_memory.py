"""Memory of large results is used again, but not while anything looks at it."""

import pytest
import torch

from bnn.ops.memory import ResultMemory, empty_channels_last

LARGE = (1 << 20,)


@pytest.fixture
def memory():
    memory = ResultMemory()
    memory.is_kept = True
    return memory


def address(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()


def test_freed_memory_is_used_again_for_what_fits(memory):
    first = memory.empty(LARGE, torch.float32)
    place = address(first)
    del first
    again = memory.empty((3 << 10, 1 << 10), torch.int8)
    assert address(again) == place
    assert (again.shape, again.dtype, again.is_contiguous()) == ((3072, 1024), torch.int8, True)


@pytest.mark.parametrize(
    "view", [lambda x: x[5:], lambda x: x.view(torch.int8), lambda x: x.detach(), torch.nn.Parameter]
)
def test_memory_that_is_looked_at_is_left_alone(memory, view):
    seen = view(memory.empty(LARGE, torch.float32))
    with torch.no_grad():
        seen.fill_(1)
        memory.empty(LARGE, torch.float32).fill_(2)
    assert (seen == 1).all()


def test_small_results_and_those_of_memory_that_is_not_kept_are_ordinary_tensors(memory):
    for kept, shape in ((True, (1000,)), (False, LARGE)):
        memory.is_kept = kept
        one = memory.empty(shape, torch.float32)
        place = address(one)
        other = memory.empty(shape, torch.float32)
        assert address(other) != place
    assert not memory._pieces


@pytest.mark.parametrize(("dtype", "other"), [(torch.int8, torch.float32), (torch.float32, torch.int8)])
def test_free_memory_that_is_too_small_or_too_large_is_given_back(memory, dtype, other):
    kept, first = memory.empty(LARGE, torch.float16), memory.empty(LARGE, dtype)
    del first
    second = memory.empty(LARGE, other)
    assert [piece.nbytes() for piece in memory._pieces] == [kept.nbytes, second.nbytes]


def test_images_are_channels_last():
    x = empty_channels_last((2, 3, 4, 5), torch.float16)
    assert (x.shape, x.dtype) == ((2, 3, 4, 5), torch.float16)
    assert x.is_contiguous(memory_format=torch.channels_last)
