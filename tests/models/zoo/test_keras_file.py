"""Weight files of Keras, whole, of another network, and hostile."""

import math
import os

import pytest
import torch

from bnn.errors import DataError
from bnn.models.zoo import RELEASED, check_values, weights_file
from bnn.models.zoo.keras_file import read_weights

h5py = pytest.importorskip("h5py", reason="files of Keras need h5py, an optional dependency")

from tests.models.zoo.keras_files import NAME, write  # noqa: E402  (it needs h5py, too)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "weights.h5")


def test_tensors_come_to_their_places_turned(path):
    model, digest = read_weights(path, NAME)
    (kernel,) = check_values.layer_values(NAME, 0, [("kernel", (7, 7, 3, 64), 0.0)], is_last=False)
    expected = torch.from_numpy(kernel).permute(3, 2, 0, 1).flip(2, 3)
    assert torch.equal(model[1].product.weight, expected)
    assert expected.any()
    assert len(digest) == 64


def test_safetensors_hold_what_was_imported(path, tmp_path):
    model, digest = read_weights(path, NAME)
    out = tmp_path / "model.safetensors"
    weights_file.save(model, out, name=NAME, source_sha256=digest)
    again = weights_file.load(out, NAME)
    assert again.source_sha256 == digest
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.model.state_dict().items())
    with pytest.raises(DataError, match=f"the weights of {NAME}, not of meliusnet22"):
        weights_file.load(out, "meliusnet22")


def test_a_file_of_another_network_is_refused_by_tensor_and_shape(path):
    with pytest.raises(DataError, match="has the shape"):
        read_weights(path, "binary_densenet45")
    with pytest.raises(DataError, match=r"kernel:0 has the shape \[7, 7, 3, 64\], where quicknet has a kernel of"):
        read_weights(path, "quicknet")


def test_a_file_without_the_classifier_is_named_as_such(tmp_path):
    with pytest.raises(DataError, match="ends before 42: take the file with the classifier"):
        read_weights(write(tmp_path / "notop.h5", layers=-1), NAME)


def edited(path, edit) -> None:
    with h5py.File(path, "r+") as file:
        edit(file)


def replace(file, value) -> None:
    del file["layer_1/layer_1/gamma:0"]
    file["layer_1/layer_1/gamma:0"] = value


HOSTILE = {
    "an external link": (lambda f: replace(f, h5py.ExternalLink("/etc/passwd", "/")), "a link to somewhere else"),
    "a soft link": (lambda f: replace(f, h5py.SoftLink("/layer_0")), "a link to somewhere else"),
    "a tensor that is missing": (lambda f: f.__delitem__("layer_1/layer_1/gamma:0"), "which it does not have"),
    "text": (lambda f: replace(f, "x"), "not an array of floats"),
    "a huge shape": (
        lambda f: (
            f.__delitem__("layer_1/layer_1/gamma:0"),
            f.create_dataset("layer_1/layer_1/gamma:0", shape=(1 << 40,), dtype="f4", chunks=(1024,)),
        ),
        r"has the shape \[1099511627776\]",
    ),
    "no names": (lambda f: f.attrs.__delitem__("layer_names"), "not a weight file of Keras"),
    "names of groups above": (lambda f: f.attrs.__setitem__("layer_names", ["../x"]), "has no '../x'"),
    "too many names": (lambda f: f["layer_1"].attrs.__setitem__("weight_names", ["x"] * 99), "up to 16 are expected"),
    "NaN": (lambda f: f["layer_1/layer_1/gamma:0"].__setitem__(3, math.nan), "not finite"),
    "a negative variance": (
        lambda f: f["layer_1/layer_1/moving_variance:0"].__setitem__(3, -1.0),
        "negative variances",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(case, path):
    edit, message = HOSTILE[case]
    edited(path, edit)
    with pytest.raises(DataError, match=message) as caught:
        read_weights(path, NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_hdf5_file_is_refused(content, tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not an HDF5 file, or is damaged"):
        read_weights(path, NAME)


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match="damaged"):
        read_weights(path, NAME)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_weights(tmp_path / "none.h5", NAME)


def test_another_published_file_is_named(path, monkeypatch):
    monkeypatch.setattr("bnn.models.zoo.keras_file.sha256", lambda _: RELEASED["quicknet"].sha256)
    with pytest.raises(DataError, match=f"has the weights of quicknet, not of {NAME}: bnn zoo import quicknet"):
        read_weights(path, NAME)


def test_a_blur_of_another_kernel_is_refused(tmp_path):
    path = write(tmp_path / "quicknet.h5", "quicknet_small")
    with pytest.raises(DataError, match="a blur of another kernel"):
        read_weights(path, "quicknet_small")


@pytest.mark.parametrize("read", [lambda path: read_weights(path, NAME), lambda path: weights_file.load(path, NAME)])
def test_a_pipe_is_refused_where_it_would_be_waited_for(read, tmp_path):
    os.mkfifo(tmp_path / "weights")
    with pytest.raises(DataError, match="not a regular file"):
        read(tmp_path / "weights")
