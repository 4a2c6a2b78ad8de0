"""Memory of large results is used again, but not while anything looks at it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnn.ops.memory import OF_EXCHANGES, ResultMemory, empty_channels_last
from tests.cli.command_line import ROOT

LARGE = (1 << 20,)
HUGE = 2 << 20


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
def test_huge_pages_are_asked_for_where_they_lie_within_the_memory(memory):
    x = memory.empty((9 << 20,), torch.int8)
    assert x.untyped_storage().nbytes() == 9 << 20
    begin = -(-address(x) // HUGE) * HUGE
    behind = (address(x) + len(x)) // HUGE * HUGE
    assert all(asks_for_huge_pages(place) for place in range(begin, behind, HUGE))
    # A huge page that does not lie within it would take memory that the result does not need.
    assert behind == address(x) + len(x) or not asks_for_huge_pages(behind)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a limit")
def test_large_memory_takes_no_more_addresses_than_its_size_and_its_lack_is_torch_s_error():
    program = """
import resource, torch
from pathlib import Path
from bnn.ops.memory import RESULTS
RESULTS.is_kept = True
def data_bytes():
    return int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) << 10
RESULTS.empty((3 << 20,), torch.int8)
RESULTS.give_back()
before = data_bytes()
held = [RESULTS.empty((5 << 19,), torch.int8) for _ in range(8)]
assert data_bytes() - before <= 21 << 20, data_bytes() - before
resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + (3 << 20),) * 2)
held.append(RESULTS.empty((5 << 19,), torch.int8))  # although two huge pages are too much
try:
    RESULTS.empty((5 << 19,), torch.int8)
except RuntimeError as error:
    assert "allocate memory" in str(error)
else:
    raise AssertionError("there was more memory than allowed")
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


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
