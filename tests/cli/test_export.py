"""`bnn export`: of a run and of a file, in one line what it takes, in one line what is wrong."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import bnn as package
from bnn.data import digits
from bnn.training import checkpoint
from tests.cli.command_line import ROOT, assert_one_line
from tests.export.networks import needs_gcc

PAGE = ROOT / "docs" / "export.md"


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


@needs_gcc
def test_the_commands_of_the_page_do_what_it_says(bnn, finished):
    page = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^bnn (export|bench) runs/digits([^#\n]*)", page, flags=re.MULTILINE)
    assert [command for command, _ in lines] == ["export", "export", "bench"]
    for command, options in lines[:1] if importlib.util.find_spec("onnx") is None else lines[:2]:
        code, _, errors = bnn(command, "run", *shlex.split(options))
        assert (code, errors) == (0, "")
    code_of_page = re.search(r"```c\n(.*?)```", page, flags=re.DOTALL)[1]
    head, calls = code_of_page.split("\n\nnetwork_run")
    program = f"{head}\n#include <stdio.h>\nint main(void) {{\nnetwork_run{calls}return 0;\n}}\n"
    Path("digits-c/main.c").write_text(program)
    subprocess.run(["make", "-C", "digits-c", "CC=gcc"], check=True, capture_output=True)
    assert subprocess.run(["digits-c/classify"], capture_output=True, check=True).stdout.strip().isdigit()


def test_what_is_wrong_is_one_line(bnn, finished):
    options = ("run", "--format", "c")
    assert_one_line(bnn("export", *options, "-o", "run"), "run is not an empty directory")
    assert_one_line(bnn("export", *options, "-o", "c", "--name", "Net"), "'Net' cannot begin the names of C")
    assert_one_line(bnn("export", "run", "-o", "c"), "--format", code=2)
    assert_one_line(bnn("export", "run", "--format", "onnx", "-o", "c", "--example"), "for --format c", code=2)
    assert_one_line(bnn("export", "run", "--format", "onnx", "-o", "c", "--fit", "1kB"), "for --format c", code=2)
    assert_one_line(bnn("export", *options, "-o", "c", "--fit", "200B"), "more than the 200 that --fit allows")
    assert not Path("c").exists()
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


@needs_gcc
def test_what_learns_begins_with_the_accumulators_of_the_run(bnn, in_an_empty_folder):
    options = ("--preset", "edge-min", "--epochs", "1", "--width", "40", "--hidden-layers", "2", "--out", "run")
    assert bnn("train", "digits", *options)[0] == 0
    code, output, errors = bnn("export", "run", "--format", "c", "--train", "--example", "-o", "c", "--batch-size", "8")
    assert (code, errors) == (0, "")
    assert "binary weights that learn, by batches of up to 8; RAM: " in output
    source = Path("c/network.c").read_text()
    codes = re.search(r"codes_0\[\d+\] = {([^}]*)}", source)[1].replace(",", " ").split()
    tensors = checkpoint.load(Path("run/checkpoints")).tensors
    assert list(map(int, codes)) == tensors["model.1.product.store.weight"].flatten().tolist()
    subprocess.run(["make", "-C", "c", "CC=gcc", "CFLAGS=-std=c99 -O1 -Wall -Wextra -Werror"], check=True)
    images = digits().test.images[:30].movedim(1, -1).flatten(1)
    examples, labels = torch.cat((images[:20], images)), torch.full((50, 1), 255, dtype=torch.uint8)
    labels[:20] = 3
    content = torch.cat((labels, examples), dim=1).numpy().tobytes()

    def printed(given: bytes) -> list[str]:
        ran = subprocess.run(["c/learn", "10"], input=given, capture_output=True, check=True)
        return ran.stdout.decode().split("\n")

    model = package.load("run/model.bnnz")
    with torch.no_grad():
        expected = model(model.preprocessing.normalized(digits().test.images[:30])).argmax(1).tolist()
    assert printed(content[20 * 65 :])[:-1] == [model.class_name(label) for label in expected]
    assert [line.rsplit(" ", 1)[0] for line in printed(content)[:2]] == ["step 1 loss", "step 2 loss"]
    ended = subprocess.run(["c/learn"], input=content[:100], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, b"the input ends within an example\n")
    if shutil.which("arm-none-eabi-gcc") is not None:
        ran = subprocess.run(["make", "-C", "c", "cortex-m"], check=True, capture_output=True, text=True)
        _, data, bss, *_ = next(line.split() for line in ran.stdout.splitlines() if line.split()[0].isdigit())
        stated = int(re.search(r"RAM: ([\d,]+) bytes", output)[1].replace(",", ""))
        assert 0 <= int(data) + int(bss) - stated < 16  # which align it


def test_options_of_learning_are_refused_without_it(bnn, finished):
    options = ("export", "run", "--format", "c", "-o", "c")
    assert_one_line(bnn(*options, "--seed", "1"), "--seed is for --train", code=2)
    assert_one_line(bnn(*options, "--train", "--seed", str(1 << 32)), "--seed is 0 or more", code=2)
    for few in ("0", "1"):
        assert_one_line(bnn(*options, "--train", "--batch-size", few), "batches of 2 to", f"examples, got {few}")
    assert_one_line(bnn(*options, "--train", "--learning-rate", "nan"), "the learning rate is finite")
    assert_one_line(bnn("export", "run", "--format", "onnx", "-o", "c", "--train"), "--train is for --format c", code=2)
