"""`bnn quantize`: a run's network in a file of a given size, and in one line what is wrong."""

from pathlib import Path

import bnn as package
from tests.cli.command_line import assert_one_line


def test_a_run_is_fitted_into_a_file_beside_it(bnn, finished):
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, output, errors = bnn("quantize", "run", "--fit", "1.4kB", "--examples", "64", "--steps", "5")
    assert (code, errors) == (0, "")
    size = Path("run-quantized.bnnz").stat().st_size
    assert f"{size:,} bytes of 1,400" in output
    assert "before" in output
    assert "now; 360 examples" in output
    assert {path: path.read_bytes() for path in before} == before
    assert bnn("compress", "run-quantized.bnnz", "-o", "again.bnnz")[0] == 0
    assert Path("again.bnnz").stat().st_size == size <= 1400
    assert "widths" in package.load("run-quantized.bnnz").about


def test_what_is_wrong_is_one_line(bnn, finished):
    assert_one_line(bnn("quantize", "run", "--fit", "500B", "--nearest"), "does not fit into 500 bytes", "--fit")
    assert_one_line(bnn("quantize", "run", "--fit", "9kB", "-o", "run/model.bnnz"), "is there already")
    assert_one_line(bnn("quantize", "run/model.bnnz", "--fit", "9kB"), "--data-dir FOLDER", code=2)
    assert_one_line(bnn("quantize", "run"), "--fit", code=2)
    assert_one_line(bnn("quantize", "run", "--fit", "9kB", "--examples", "3"), "--examples is at least 8", code=2)
    Path("sweep").mkdir()
    assert_one_line(bnn("quantize", "sweep", "--fit", "9kB"), "sweep is not the directory of a run")
