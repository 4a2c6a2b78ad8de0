"""`bnn quantize`: a run's network in a file of a given size, and in one line what is wrong."""

import html
import json
from pathlib import Path

import pytest
import torch

import bnn as package
from bnn.codec import described, save
from bnn.reports.findings import read_findings
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


def test_a_network_without_norms_and_a_run_without_latent_weights_are_refused_by_name(bnn, finished, monkeypatch):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    given = package.load("run/model.bnnz")
    save(plain, Path("plain.bnnz"), about=described(plain, preprocessing=given.preprocessing, classes=given.classes))
    for words in (
        ["synthesize", "plain.bnnz", "-o", "images"],
        ["quantize", "plain.bnnz", "--fit", "2kB", "--data-free"],
    ):
        assert_one_line(bnn(*words), "no norm of the network has kept the statistics of its data")
    assert not Path("images").exists()
    monkeypatch.setattr("bnn.weights.base.WeightStore.has_latent_weight", False)
    monkeypatch.setattr("bnn.presets.named_stores", lambda model: ())  # which refuses such weights itself
    assert_one_line(bnn("shrink", "run", "--keep", "0.5"), "run trains", "shrink a run of another recipe")
    assert not Path("run-shrunk").exists()


def test_a_diagnosis_is_a_page_with_advice_under_each_figure(bnn, finished):
    code, output, errors = bnn("diagnose", "run", "--examples", "32")
    assert (code, errors) == (0, "")
    page = Path("run/diagnosis.html").read_text(encoding="utf-8")
    assert len(read_findings(Path("run"))) == 7
    lines = [line for line in output.splitlines() if ": " in line and not line.startswith("page: ")]
    assert len(lines) == 7
    assert page.count("<svg") == page.count('<p class="alert">') == 7
    for line in lines:
        title, _, advice = line.partition(": ")
        assert html.escape(title, quote=False).replace("'", "&#39;") in page
        assert html.escape(advice, quote=False) in page
    assert_one_line(bnn("diagnose", "run/model.bnnz"), "--data-dir FOLDER", code=2)


def test_a_run_goes_on_with_fewer_channels(bnn, finished):
    code, output, errors = bnn("shrink", "run", "--keep", "0.5", "--epochs", "1", "--examples", "64")
    assert (code, errors) == (0, "")
    assert "1.product: 16 channels, now 8" in output
    assert "without these channels" in output
    assert Path("run-shrunk/model.bnnz").stat().st_size < Path("run/model.bnnz").stat().st_size
    store = package.load("run-shrunk/model.bnnz").network.get_submodule("1.product").store
    assert store.shape == (8, 64)
    assert json.loads(Path("run-shrunk/config.json").read_text())["keep"] == 0.5
    assert_one_line(bnn("shrink", "run", "--keep", "0.5"), "run-shrunk is there already")
    assert_one_line(bnn("shrink", "run", "--keep", "1"), "above 0 and below 1", code=2)
    assert_one_line(bnn("shrink", "run", "--keep", "0.5", "--epochs", "0"), "--epochs is at least 1, got 0", code=2)
    assert_one_line(bnn("shrink", "run/model.bnnz", "--keep", "0.5"), "name the directory of a run", code=2)
    assert_one_line(bnn("train", "--resume", "run-shrunk"), "was made without a recipe")


def test_pictures_of_the_norms_statistics(bnn, finished):
    pytest.importorskip("PIL", reason="pillow is an optional dependency")
    code, output, errors = bnn("synthesize", "run", "-o", "images", "--examples", "5", "--steps", "2")
    assert (code, errors) == (0, "")
    assert "5 inputs" in output
    assert sorted(path.name for path in Path("images").iterdir()) == [*(f"{k}.png" for k in range(5)), "sheet.png"]
    assert_one_line(bnn("synthesize", "run", "-o", "images"), "images is there already")
    code, output, errors = bnn(
        "quantize", "run/model.bnnz", "--fit", "1.4kB", "--data-free", "--examples", "16", "--steps", "2"
    )
    assert (code, errors) == (0, "")
    assert Path("run/model-quantized.bnnz").stat().st_size <= 1400
