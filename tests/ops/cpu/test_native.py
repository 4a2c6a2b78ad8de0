"""The choice of kernels at import: the environment variable, and the ways back to the reference."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from bnn.errors import BnnError
from bnn.ops import cpu
from bnn.ops.cpu import native

ROOT = Path(__file__).parents[3]
Printed = Callable[[str], tuple[str, str]]

PRODUCT = """
import torch, bnn.ops, bnn.ops.cpu
x, weight = torch.tensor([[0b101]], dtype=torch.uint8), torch.tensor([[0b110], [0b101]], dtype=torch.uint8)
print(bnn.ops.cpu.instruction_set(), torch.ops.bnn.linear(x, weight, 3).tolist())
"""
NO_EXTENSION = "import sys; sys.modules['bnn._native'] = None\n"
WRONG_EXTENSION = """
import sys, types
def linear(isa, threads, x, weight, out, *sizes):
    pass  # leaves the result as it was
sys.modules['bnn._native'] = types.SimpleNamespace(instruction_sets=lambda: ['avx512'], linear=linear)
"""
WRONG_GRADIENTS = """
import importlib, torch
native = importlib.import_module("bnn._native")
right = native.conv2d_backward_input
native.conv2d_backward_input = lambda *args: right(*args[:3], 2 * args[3], *args[4:])
"""

MAPS = Path("/proc/self/maps")
LIBRARIES = f"import pathlib; print(*pathlib.Path('{MAPS}').read_text().split())" if MAPS.exists() else ""

CASES = {
    "not built": (NO_EXTENSION + PRODUCT, ""),
    "wrong products": (WRONG_EXTENSION + PRODUCT, ""),
    "wrong gradients": (WRONG_GRADIENTS + PRODUCT, ""),
    "reference": (PRODUCT, "reference"),
    "not built, reference": (NO_EXTENSION + PRODUCT, "reference"),
    "generic": (PRODUCT + LIBRARIES, "generic"),
}
OF_REFERENCE = ("not built", "wrong products", "reference", "not built, reference")
# An interpreter that has loaded torch, but not this package, becomes a process of its own for each case.
OF_CASES = """
import json, os, sys, torch
for name, (code, kernels) in json.load(sys.stdin).items():
    if os.fork() == 0:
        os.environ["BNN_KERNELS"] = kernels
        for stream in (1, 2):
            os.dup2(os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0, name
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """Gives what a new process prints to stdout and to stderr in a case."""
    folder = tmp_path_factory.mktemp("native")
    cases = CASES if cpu.instruction_set() != "reference" else {name: CASES[name] for name in OF_REFERENCE}
    subprocess.run(
        [sys.executable, "-W", "always", "-c", OF_CASES],
        input=json.dumps(cases),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        text=True,
        check=True,
    )

    def read(name: str) -> tuple[str, str]:
        return (folder / f"{name}.1").read_text().strip(), (folder / f"{name}.2").read_text()

    return read


def test_without_the_extension_the_reference_works_after_one_warning(printed: Printed) -> None:
    out, err = printed("not built")
    assert out == "reference [[-1.0, 3.0]]"
    assert err.count("RuntimeWarning") == 1
    assert "not built" in err
    assert "install a C++ compiler and reinstall, or set BNN_KERNELS=reference" in err


def test_wrong_products_at_load_bring_the_reference_back_with_one_warning(printed: Printed) -> None:
    out, err = printed("wrong products")
    assert out == "reference [[-1.0, 3.0]]"
    assert err.count("RuntimeWarning") == 1
    assert "avx512 kernels give wrong products" in err


@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="the native kernels are not built or not chosen")
def test_wrong_gradients_at_load_bring_the_reference_back_with_one_warning(printed: Printed) -> None:
    out, err = printed("wrong gradients")
    assert out == "reference [[-1.0, 3.0]]"
    assert err.count("RuntimeWarning") == 1
    assert "kernels give wrong gradients" in err


@pytest.mark.parametrize("name", ["reference", "not built, reference"])
def test_the_reference_can_be_chosen_in_silence(name: str, printed: Printed) -> None:
    assert printed(name) == ("reference [[-1.0, 3.0]]", "")


@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="the native kernels are not built or not chosen")
def test_an_instruction_set_can_be_chosen_and_one_pool_of_threads_serves_torch_too(printed: Printed) -> None:
    out, err = printed("generic")
    assert err == ""
    assert out.splitlines()[0] == "generic [[-1.0, 3.0]]"
    assert len({word for word in out.split() if "libgomp" in word}) <= 1


@pytest.mark.parametrize("wanted", ["sse9", "neon", "avx512"])
def test_a_set_that_is_not_there_is_an_error(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNN_KERNELS", wanted)
    monkeypatch.setitem(sys.modules, "bnn._native", SimpleNamespace(instruction_sets=lambda: ["avx2", "generic"]))
    with pytest.raises(BnnError, match=f"BNN_KERNELS={wanted}, but there is avx2 generic here"):
        native.load()
    monkeypatch.setitem(sys.modules, "bnn._native", None)
    with pytest.raises(BnnError, match="no native kernel"):
        native.load()


@pytest.mark.parametrize("name", ["amx", "avx512", "avx2", "neon-dot", "neon", "generic"])
def test_a_set_passes_the_check_at_load(name: str) -> None:
    extension = pytest.importorskip("bnn._native", reason="the native kernels are not built")
    if name not in extension.instruction_sets():
        pytest.skip(f"this CPU has no {name}: no kernel of it is tested")
    assert native.products_are_right(extension, name)
    assert native.gradients_are_right(extension, name)
