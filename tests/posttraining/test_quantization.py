"""A network in a file of a given size."""

import pytest
import torch

from bnn.codec import load, save
from bnn.codec.model import recode
from bnn.errors import RunError
from bnn.posttraining.quantization import Measured, quantize
from tests.posttraining.networks import CALIBRATION, accuracy, binary, data, real


def test_the_file_is_as_large_as_promised_and_says_the_same(tmp_path):
    model, x, fit_bytes = real(), data()[0][:CALIBRATION], 2200
    found = quantize(model, x, fit_bytes=fit_bytes, steps=10)
    path = tmp_path / "small.bnnz"
    found.save(path)
    assert path.stat().st_size == found.size_bytes <= fit_bytes
    assert recode(path, tmp_path / "again.bnnz") == found.size_bytes
    loaded = load(path)
    torch.testing.assert_close(loaded(x), found.model(x))
    assert loaded.about["widths"] == {part.name: part.width for part in found.parts}
    plain = quantize(model, x, fit_bytes=fit_bytes, calibrate=False)
    assert plain.size_bytes <= fit_bytes
    assert found.divergence < plain.divergence
    assert accuracy(loaded.network) > accuracy(model.network) - 0.08


def test_what_is_measured_once_fits_into_each_size_as_by_itself():
    model, x = real(), data()[0][:CALIBRATION]
    measured = Measured(model, x)
    for fit_bytes in (2200, 4000):
        assert measured.fit(fit_bytes, steps=5).content == quantize(model, x, fit_bytes=fit_bytes, steps=5).content


def test_the_least_size_is_named_and_fits():
    model, x = real(), data()[0][:CALIBRATION]
    with pytest.raises(RunError, match=r"with the least widths its file takes ([\d,]+); take --fit") as refused:
        quantize(model, x, fit_bytes=900, calibrate=False)
    least = int(str(refused.value).partition("--fit ")[2].partition("B")[0])
    assert quantize(model, x, fit_bytes=least, calibrate=False).size_bytes == least


def test_of_a_binary_network_the_weights_stay_and_the_rest_gets_16_bits(tmp_path):
    model, x = binary(), data()[0][:CALIBRATION]
    before = save(model.network, tmp_path / "before.bnnz")
    small = quantize(model, x, fit_bytes=before - 300, steps=2)
    assert small.size_bytes <= before - 300
    assert {part.width for part in small.parts} <= {"16", "32"}
    assert {part.name.partition(":")[0] for part in small.parts} == {"1.norm", "2.norm", "3.norm"}
    small.save(tmp_path / "small.bnnz")
    torch.testing.assert_close(load(tmp_path / "small.bnnz")(x), small.model(x))


def test_few_examples_are_refused():
    with pytest.raises(RunError, match="at least 8 examples, not 7"):
        quantize(real(), data()[0][:7], fit_bytes=10**6)
