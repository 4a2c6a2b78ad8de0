"""`bnn bench`: every way has its figures, or a reason why it has none."""

import json

import pytest

from bnn.cli.bench.measure import measured_c
from bnn.errors import RunError
from tests.cli.command_line import assert_one_line


def test_what_is_wrong_is_one_line(bnn, finished):
    assert_one_line(bnn("bench", "run", "--threads", "0"), "at least 1", code=2)
    assert_one_line(bnn("bench", "nothing.bnnz"), "there is no nothing.bnnz")


def test_a_compiler_that_fails_is_said(tmp_path):
    (tmp_path / "main.c").write_text("int main(void) { return nothing; }")
    with pytest.raises(RunError, match="false does not compile the export"):
        measured_c(tmp_path, "false", 1)


@pytest.mark.slow
def test_every_way_is_timed(bnn, finished):
    code, output, errors = bnn("bench", "run", "--json", "--batch-size", "8")
    assert (code, errors) == (0, "")
    content = json.loads(output)
    ways, left_out = content["ways"], content["left_out"]
    assert sorted([*ways, *left_out]) == ["C, one thread", "bnn", "onnxruntime", "torch, float32"]
    assert {"bnn", "torch, float32"} <= ways.keys()
    for figures in ways.values():
        assert 0 < figures["latency_s"] < 10
        assert figures["images_per_s"] > 1
    if "C, one thread" in ways:
        assert 2**15 < ways["C, one thread"]["process_bytes"] < ways["bnn"]["process_bytes"] / 10
    code, output, _ = bnn("bench", "run", "--batch-size", "8")
    assert code == 0
    assert "images/s, 8 at a time" in output
