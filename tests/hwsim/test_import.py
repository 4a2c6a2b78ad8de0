"""The command line answers before torch is loaded, and the page's example works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.store import DeviceStore


@pytest.mark.parametrize("module", ["hwsim", "hwsim.cli"])
def test_import_brings_no_torch(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_example_of_the_page_builds_a_network():
    page = Path(__file__).parents[2] / "docs" / "hwsim.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert [module for module in names["model"].modules() if isinstance(module, DeviceStore)]
