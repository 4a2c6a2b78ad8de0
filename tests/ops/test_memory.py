"""Memory of large results is used again, but not while anything looks at it."""

import re
import sys
from pathlib import Path

import pytest
import torch

from bnn.ops.memory import OF_EXCHANGES, ResultMemory, empty_channels_last

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


def test_of_exchanges_much_smaller_tensors_take_free_memory():
    memory = ResultMemory(most_times=OF_EXCHANGES.most_times)
    memory.is_kept = True
    place = address(memory.empty(LARGE, torch.float64))
    for dtype in (torch.int8, torch.float32, torch.float64):
        assert address(memory.empty(LARGE, dtype)) == place


@pytest.mark.parametrize(("dtype", "other"), [(torch.int8, torch.float32), (torch.float32, torch.int8)])
def test_free_memory_that_is_too_small_or_too_large_is_given_back(memory, dtype, other):
    kept, first = memory.empty(LARGE, torch.float16), memory.empty(LARGE, dtype)
    del first
    second = memory.empty(LARGE, other)
    assert [piece.nbytes() for piece in memory._pieces] == [kept.nbytes, second.nbytes]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked for huge pages")
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no huge pages")
def test_huge_pages_are_asked_for_where_memory_holds_some(memory):
    x = memory.empty((8 << 20,), torch.int8)
    assert asks_for_huge_pages(address(x) + (4 << 20))


def asks_for_huge_pages(place: int) -> bool:
    """Whether the mapping around an address has the flag that madvise(2) sets."""
    for mapping in re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)[1:]:
        begin, end = (int(x, 16) for x in mapping.split(maxsplit=1)[0].split("-"))
        if begin <= place < end:
            return bool(re.search(r"^VmFlags:.* hg\b", mapping, re.MULTILINE))
    raise AssertionError(f"no mapping holds {place:x}")


def test_images_are_channels_last():
    x = empty_channels_last((2, 3, 4, 5), torch.float16)
    assert (x.shape, x.dtype) == ((2, 3, 4, 5), torch.float16)
    assert x.is_contiguous(memory_format=torch.channels_last)
