"""`bnn export`: of a run and of a file, in one line what it takes, in one line what is wrong."""

import json
import shutil
import subprocess

import pytest
import torch

import bnn as package
from bnn.data import digits
from tests.cli.command_line import assert_one_line
from tests.export.networks import needs_gcc


@needs_gcc
def test_the_example_classifies_the_test_digits_as_the_run_does(bnn, finished):
    code, output, _ = bnn("export", "run", "--format", "c", "-o", "c", "--example")
    assert code == 0
    assert "binary weights; flash: " in output
    subprocess.run(["make", "-C", "c", "CC=gcc"], check=True, capture_output=True)
    images = digits().test.images[:100]
    ran = subprocess.run(["c/classify"], input=images.movedim(1, -1).numpy().tobytes(), capture_output=True, check=True)
    model = package.load("run/model.bnnz")
    with torch.no_grad():
        labels = model(model.preprocessing.normalized(images)).argmax(1)
    assert ran.stdout.decode().split() == [model.class_name(label) for label in labels.tolist()]


def test_onnx_of_a_run(bnn, finished):
    onnx = pytest.importorskip("onnx", reason="pip install 'bnn-edge[export]'")
    code, output, _ = bnn("export", "run/model.bnnz", "--format", "onnx", "-o", "onnx", "--name", "digits")
    assert code == 0
    assert "opset 18" in output
    model = onnx.load("onnx/digits.onnx")
    assert {prop.key: json.loads(prop.value) for prop in model.metadata_props} == {"classes": list("0123456789")}


def test_what_is_wrong_is_one_line(bnn, finished):
    options = ("run", "--format", "c")
    assert_one_line(bnn("export", *options, "-o", "run"), "run is not an empty directory")
    assert_one_line(bnn("export", *options, "-o", "c", "--name", "Net"), "'Net' cannot begin the names of C")
    assert_one_line(bnn("export", "run", "-o", "c"), "--format", code=2)
    assert_one_line(bnn("export", "run", "--format", "onnx", "-o", "c", "--example"), "for --format c", code=2)
    assert_one_line(bnn("export", "nothing.bnnz", "--format", "c", "-o", "c"), "there is no nothing.bnnz")


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="apt install gcc-arm-none-eabi")
def test_ram_on_a_microcontroller_is_what_is_printed(bnn, finished):
    _, output, _ = bnn("export", "run", "--format", "c", "-o", "c", "--example")
    ran = subprocess.run(["make", "-C", "c", "cortex-m"], check=True, capture_output=True, text=True)
    text, data, bss, *_ = ran.stdout.splitlines()[-2].split()
    if not text.isdigit():
        text, data, bss, *_ = ran.stdout.splitlines()[-1].split()
    assert f"RAM: {int(data) + int(bss):,} bytes" in output
    constants = int(output.split("flash: ")[1].split(" bytes")[0].replace(",", ""))
    assert constants <= int(text) <= constants + 4096
