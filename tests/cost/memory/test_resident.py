import subprocess
import sys

import pytest
import torch

from bnn.cost.memory import peak_device_bytes, peak_rss_bytes
from bnn.cost.memory.resident import available_bytes

_TOUCH = """import mmap
from bnn.cost.memory import peak_rss_bytes
before = peak_rss_bytes()
untouched = mmap.mmap(-1, 512 << 20)
reserved = peak_rss_bytes()
touched = b"1" * (256 << 20)
del touched
print(before, reserved, peak_rss_bytes())
"""


def test_peak_grows_by_memory_that_was_touched_and_stays_after_it_is_freed():
    ran = subprocess.run([sys.executable, "-c", _TOUCH], capture_output=True, text=True, check=True)
    before, reserved, after = (int(word) for word in ran.stdout.split())
    assert reserved - before < 32 << 20, "reserving is not touching"
    assert 224 << 20 < after - before < 288 << 20


def test_peak_is_that_of_this_process_and_not_of_the_one_that_started_it():
    start = "import subprocess, sys; print(b'1' * (500 << 20) and subprocess.check_output(sys.argv[1:], text=True))"
    child = "from bnn.cost.memory import peak_rss_bytes; print(peak_rss_bytes())"
    ran = subprocess.run([sys.executable, "-c", start, sys.executable, "-c", child], capture_output=True, check=True)
    assert int(ran.stdout) < 450 << 20


def test_peak_of_this_process_is_plausible():
    assert 50 << 20 < peak_rss_bytes() < 100 << 30


def test_devices_without_a_meter_say_so():
    assert peak_device_bytes(torch.device("cpu")) is None


_RISE = """from bnn.cost.memory.resident import PeakResident
before = bytearray(96 << 20)
del before
resident = PeakResident()
touched = bytearray(64 << 20)
del touched
print(resident.above_start_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be reset on Linux alone")
def test_rise_above_the_start_forgets_what_was_before():
    ran = subprocess.run([sys.executable, "-c", _RISE], capture_output=True, text=True, check=True)
    assert 60 << 20 < int(ran.stdout) < 70 << 20


def test_available_memory_is_that_of_the_machine_or_unknown():
    available = available_bytes()
    assert available is None or 10 << 20 < available < 100 << 40
