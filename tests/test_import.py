"""`import bnn` is quick, and its names are there."""

import subprocess
import sys

import pytest

import bnn


def test_import_brings_no_torch():
    program = (
        "import sys, bnn, bnn.errors; print(sorted({'torch', 'numpy', 'rich', 'jsonargparse'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_every_name_is_what_its_home_defines():
    assert sorted(bnn.__all__) == sorted(name for names in bnn._HOMES.values() for name in names)
    for name in bnn.__all__:
        assert getattr(bnn, name).__name__ == name
        assert getattr(bnn, name).__module__.startswith("bnn.")


def test_names_can_be_imported_one_by_one():
    from bnn import BinaryLinear, Run, Trainer

    assert (BinaryLinear, Run, Trainer) == (bnn.layers.BinaryLinear, bnn.training.Run, bnn.training.Trainer)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'bnn' has no attribute 'BinaryLinaer'"):
        _ = bnn.BinaryLinaer
