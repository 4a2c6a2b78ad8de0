"""`import hwsim` is quick, and its names are there."""

import subprocess
import sys

import pytest

import hwsim
import hwsim.devices


@pytest.mark.parametrize("module", ["hwsim", "hwsim.cli"])
def test_import_brings_no_torch(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_every_name_is_that_of_the_devices():
    for name in hwsim.__all__:
        assert getattr(hwsim, name) is getattr(hwsim.devices, name)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hwsim' has no attribute 'MJT'"):
        _ = hwsim.MJT
