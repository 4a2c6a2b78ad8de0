"""`import hwsim` is quick, and its names are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hwsim
import hwsim.devices


@pytest.mark.parametrize("module", ["hwsim", "hwsim.cli"])
def test_import_brings_no_torch(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_every_name_is_there():
    for name in hwsim.__all__:
        assert getattr(hwsim, name) is not None
    for name in hwsim.devices.__all__:
        if name != "Pulse":
            assert getattr(hwsim, name) is getattr(hwsim.devices, name)


def test_example_of_the_page_builds_a_network():
    page = Path(__file__).parents[2] / "docs" / "hwsim.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert [module for module in names["model"].modules() if isinstance(module, hwsim.DeviceStore)]


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hwsim' has no attribute 'MJT'"):
        _ = hwsim.MJT
