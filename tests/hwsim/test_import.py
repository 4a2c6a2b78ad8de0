"""The command line answers before torch is loaded, and the page's example works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.compound import CompoundStore
from hwsim.store import DeviceStore


@pytest.mark.parametrize("module", ["hwsim", "hwsim.cli"])
def test_import_brings_no_torch(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(("name", "store"), [("hwsim", DeviceStore), ("hwsim-arrays", CompoundStore)])
def test_example_of_the_page_builds_a_network(name, store):
    page = Path(__file__).parents[2] / "docs" / f"{name}.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert [module for module in names["model"].modules() if isinstance(module, store)]
