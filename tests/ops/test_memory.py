"""Memory of large results is used again, but not while anything looks at it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import cpu
from bnn.ops import memory as of_results
from bnn.ops.memory import LARGE_BYTES, ResultMemory, empty_channels_last
from tests.cli.command_line import ROOT

LARGE = (1 << 20,)
PAGE = 4096


@pytest.fixture
def memory():
    memory = ResultMemory()
    if memory._arena is None:
        pytest.skip("there is no range of addresses without the native kernels, or not on Linux")
    memory.is_kept = True
    yield memory
    memory.give_back()


def address(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", list(of_results._CODES))
def test_tensors_are_as_those_of_torch(memory, dtype):
    x, like = memory.empty((300, 5, 700), dtype), torch.empty((300, 5, 700), dtype=dtype)
    assert (x.dtype, x.shape, x.stride(), x.device) == (like.dtype, like.shape, like.stride(), like.device)
    assert x.untyped_storage().nbytes() == like.untyped_storage().nbytes()
    assert torch.equal(x.fill_(3), like.fill_(3))
    assert address(x) % PAGE == 0


def test_the_lowest_free_part_that_holds_a_result_is_taken(memory):
    mib = LARGE_BYTES * 4
    parts = [memory.empty((mib,), torch.int8) for _ in range(4)]
    begin = address(parts[0])
    assert [address(x) - begin for x in parts] == [0, mib, 2 * mib, 3 * mib]
    del parts[1]
    half, more = memory.empty((mib // 2,), torch.int8), memory.empty((mib,), torch.int8)
    assert (address(half) - begin, address(more) - begin) == (mib, 4 * mib)
    del parts, half  # the first to third parts, and what is left of the second, are one
    assert address(memory.empty((3 * mib,), torch.int8)) == begin


@pytest.mark.parametrize(
    "view", [lambda x: x[5:], lambda x: x.view(torch.int8), lambda x: x.detach(), torch.nn.Parameter]
)
def test_memory_that_is_looked_at_is_left_alone(memory, view):
    seen = view(memory.empty(LARGE, torch.float32))
    with torch.no_grad():
        seen.fill_(1)
        memory.empty(LARGE, torch.float32).fill_(2)
    assert (seen == 1).all()


@given(sizes=st.lists(st.integers(LARGE_BYTES, 3 * LARGE_BYTES), min_size=1, max_size=12), data=st.data())
def test_results_that_live_share_no_byte(sizes, data):
    memory = ResultMemory()
    memory.is_kept = True
    live: list[tuple[int, torch.Tensor]] = []
    for number, size in enumerate(sizes):
        live.append((number, memory.empty((size,), torch.uint8).fill_(number)))
        if data.draw(st.booleans()):
            live.pop(data.draw(st.integers(0, len(live) - 1)))
        assert all(bool((x == of).all()) for of, x in live)


def test_small_results_and_those_of_memory_that_is_not_kept_are_ordinary_tensors(memory):
    inside = address(memory.empty(LARGE, torch.float32))
    for kept, shape in ((True, (1000,)), (False, LARGE)):
        memory.is_kept = kept
        assert address(memory.empty(shape, torch.float32)) != inside
    assert memory.empty(LARGE, torch.complex64).dtype is torch.complex64


def test_what_is_free_goes_back_to_the_system(memory):
    before = memory.nbytes
    kept = memory.empty((LARGE_BYTES,), torch.uint8).fill_(5)
    high = memory.empty((16 * LARGE_BYTES,), torch.uint8).fill_(1)
    resident = resident_bytes()
    del high
    assert memory.nbytes == before + 17 * LARGE_BYTES
    memory.give_back()
    assert memory.nbytes == before + LARGE_BYTES
    assert resident - resident_bytes() > 15 * LARGE_BYTES
    assert (kept == 5).all()
    assert (memory.empty((16 * LARGE_BYTES,), torch.uint8).fill_(7) == 7).all()


def test_no_more_is_held_than_was_in_use_at_once(memory):
    first, second, third = (memory.empty((4 * LARGE_BYTES,), torch.uint8).fill_(i) for i in range(3))
    most = memory.nbytes
    del second
    large = memory.empty((6 * LARGE_BYTES,), torch.uint8).fill_(4)  # behind the third
    # What the second has freed is needed no more, but for the half that the large one is larger.
    assert memory.nbytes == most + 2 * LARGE_BYTES
    again = memory.empty((4 * LARGE_BYTES,), torch.uint8)  # there
    assert address(again) == address(first) + 4 * LARGE_BYTES
    again.fill_(5)
    assert [bool((x == of).all()) for x, of in ((first, 0), (third, 2), (large, 4), (again, 5))] == [True] * 4
    grown, resident = memory.nbytes, resident_bytes()
    del first, third, again
    assert memory.nbytes == grown == most + 6 * LARGE_BYTES
    assert abs(resident_bytes() - resident) < LARGE_BYTES


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_a_part_that_no_tensor_takes_over_is_free_again(memory):
    part = memory._arena.take((LARGE_BYTES,), 1, 8, False)
    place = address(torch.utils.dlpack.from_dlpack(part))
    del part
    memory._arena.take((LARGE_BYTES,), 1, 8, False)
    assert address(memory.empty((LARGE_BYTES,), torch.uint8)) == place


BORROWING = """
import resource
import torch
from bnn.ops import functions, memory
from bnn.ops.geometry import Window
from bnn.training.allocator import give_back_freed_memory

torch.set_num_threads(1)
give_back_freed_memory()
shape, weight = (20, 64, 16, 16), (256, 64, 3, 3)
q = memory.empty((20, 16, 16, 256), torch.int8).random_(-100, 100).movedim(-1, 1)
x = torch.randint(256, (20, 64 * 16 * 16 // 8), dtype=torch.uint8)

def gradient():
    return functions.conv2d_backward_weight(q, torch.tensor(1.0), x, shape, weight, Window.of(padding=1))

images, kernels = torch.ones(2, 100, 16, 64), torch.ones(16, 100, 3, 3)

def product():
    # In 79 KB that are clear where the padding is.
    return functions.float_conv2d(images, kernels, Window.of(padding=1), torch.float32)

expected, padded = gradient(), product()  # in memory of their own
memory.RESULTS.is_kept = KEPT
spare = memory.empty((8 << 20,), torch.uint8).fill_(255)
del spare
same, held = torch.equal(product(), padded), memory.RESULTS.nbytes
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
same &= all(torch.equal(gradient(), expected) for _ in range(20)) and torch.equal(product(), padded)
print(same, memory.RESULTS.nbytes - held, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="there are no kernels")
def test_kernels_work_in_free_memory_and_do_not_hold_more(memory):
    """What they work in was full of ones before."""
    same, grown, faults = run_alone(BORROWING.replace("KEPT", "True"))
    assert (same, grown) == ("True", "0")
    *_, of_their_own = run_alone(BORROWING.replace("KEPT", "False"))
    assert int(faults) < 200 < int(of_their_own), "as soon as it is freed, it goes back to the system"


def run_alone(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


def test_more_than_there_is_is_refused(memory):
    with pytest.raises(MemoryError):
        memory.empty((1 << 50,), torch.uint8)


UNDER_A_LIMIT = """
import resource
from pathlib import Path
from bnn.ops.memory import RESULTS
import torch
RESULTS.is_kept, mib = True, 1 << 20
def data_bytes():
    return int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) << 10
low, high = (RESULTS.empty((size * mib,), torch.uint8).fill_(1) for size in (4, 32))
del high
resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + 8 * mib,) * 2)
del low
again = RESULTS.empty((36 * mib,), torch.uint8)  # what is held
try:
    RESULTS.empty((16 * mib,), torch.uint8)
except MemoryError:
    pass
else:
    raise AssertionError("there was more memory than allowed")
del again
RESULTS.give_back()
print(torch.ones(32 * mib, dtype=torch.uint8)[-1].item())  # in the memory that was given back
"""


def test_what_is_held_counts_towards_a_limit_and_what_is_given_back_does_not(memory):
    ran = subprocess.run([sys.executable, "-c", UNDER_A_LIMIT], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("1\n", "", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked for huge pages")
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no huge pages")
def test_huge_pages_are_asked_for(memory):
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
