"""`bnn.load`: one call gives the network of a file, ready to be evaluated."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bnn
from bnn.codec import Model, described, load, load_into, save
from bnn.codec.container import read_all, write
from bnn.codec.errors import CodecError, FormatError, MemoryLimitError, MismatchError
from bnn.data import Preprocessing
from bnn.errors import DataError
from bnn.layers import BinaryConv2d
from bnn.models import initialize, mlp, resnet8, resnete18, vgg_small
from bnn.presets import prepare
from bnn.quantizers import ScaledSign
from bnn.training import Trainer
from bnn.weights import LatentStore, SparseStore
from tests.training.tiny_runs import RUNS, tiny_dataset

SHAPE = (3, 32, 32)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.bnnz"


def network(preset: str, make=resnet8) -> nn.Module:
    """A network with statistics of its own."""
    step = prepare(preset, partial(make, input_shape=SHAPE, classes=5), input_shape=SHAPE)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, *SHAPE, generator=generator), torch.arange(8) % 5
    assert step.take(x.contiguous(memory_format=torch.channels_last), y) is not None
    return step.model.eval()


def same(one: nn.Module, other: nn.Module, shape=SHAPE) -> bool:
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return torch.equal(one(x), other(x))


@pytest.mark.parametrize(
    ("make", "preset"),
    [
        *itertools.product([resnet8], ["standard", "edge", "edge-min"]),
        (vgg_small, "edge-min"),
        *(pytest.param(vgg_small, preset, marks=pytest.mark.slow) for preset in ("standard", "edge")),
        *(pytest.param(resnete18, preset, marks=pytest.mark.slow) for preset in ("standard", "edge", "edge-min")),
    ],
)
def test_logits_are_those_of_the_network(make, preset, path):
    model = network(preset, make)
    save(model, path)
    loaded = bnn.load(path)
    assert not loaded.training
    assert not loaded.network.training
    assert same(loaded, model)
    again = path.with_name("again.bnnz")
    save(loaded.network, again)
    assert same(bnn.load(again), model)


@pytest.mark.parametrize("make", [name for name in RUNS if RUNS[name]().model[1].__class__.__name__ != "Noise"])
def test_a_run_s_file_has_its_classes_and_preprocessing(make, tmp_path):
    run = RUNS[make]()
    Trainer(run, tmp_path / "run").fit()
    loaded, data = bnn.load(tmp_path / "run" / "model.bnnz"), tiny_dataset()
    assert loaded.classes == data.classes
    assert loaded.preprocessing == data.preprocessing
    assert loaded.precision == run.precision
    assert (loaded.about["epochs"], loaded.about["data"]) == (run.epochs, "drawn")
    x = loaded.preprocessing.normalized(data.test.images)
    with torch.no_grad():
        assert torch.equal(loaded(x), run.forward(x, data.test.labels)[0])


@pytest.mark.parametrize("store", [partial(LatentStore, quantizer=ScaledSign()), SparseStore], ids=["scaled", "sparse"])
def test_stores_of_every_kind(store, path):
    model = nn.Sequential(BinaryConv2d(3, 4, 3, store=store), nn.Flatten(), nn.Linear(4 * 900, 5))
    initialize(model, generator=torch.Generator().manual_seed(0))
    save(model.eval(), path)
    assert same(bnn.load(path), model)


def test_narrow_floats_are_widened(path):
    model = network("standard")
    save(model, path, float_dtype=torch.float16)
    loaded = bnn.load(path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    other = network("standard")
    load_into(other, path)
    assert same(loaded, other)


def test_predicts_pictures_by_the_names_of_the_classes(path, tmp_path):
    takes = Preprocessing(SHAPE, (0.5,) * 3, (0.25,) * 3)
    model = network("standard")
    save(model, path, about=described(model, preprocessing=takes, classes=["a", "b", "c", "d"]))
    pixels = np.random.default_rng(0).integers(0, 256, (100, 40, 40, 3), dtype=np.uint8)
    pictures = [tmp_path / f"{number}.png" for number in range(100)]
    for picture, image in zip(pictures, pixels, strict=True):
        Image.fromarray(image).save(picture)
    loaded = bnn.load(path)
    found = loaded.predict(pictures, top=9)
    assert len(found) == 100
    assert {guess.name for guess in found[0]} == {"a", "b", "c", "d", "4"}
    for guesses in found:
        assert [guess.probability for guess in guesses] == sorted((g.probability for g in guesses), reverse=True)
        assert sum(guess.probability for guess in guesses) == pytest.approx(1, abs=1e-5)
    for place in (3, 99):
        pictures[place].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2 of 100 pictures cannot be decoded: .*/3\.png \(.*/99\.png \("):
        loaded.predict(pictures)
    with pytest.raises(DataError, match="does not say how a picture becomes its input"):
        Model(model).predict(pictures)


def test_files_without_a_description_say_how_to_go_on(path):
    model = mlp(hidden=(8,))
    save(model, path, about={})
    with pytest.raises(CodecError, match=r"does not say how its network is made .*bnn\.codec\.load_into"):
        load(path)
    with pytest.raises(CodecError, match="cannot be read"):
        load(path.with_name("gone.bnnz"))


def rewritten(path: Path, **changes) -> Path:
    entries, description = read_all(path)
    write(path, entries, {**description, **changes})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": 5}, "names no class"),
        ({"network": {"class": "os.system"}}, "does not know, 'os.system'"),
        ({"precision": "float8"}, "the precision is none"),
        ({"precision": []}, "the precision is none"),
        ({"classes": 5}, "the description is damaged"),
        ({"classes": [5]}, "the name of a class is no text"),
        ({"classes": ["x" * 2000]}, "or a very long one"),
        ({"about": []}, "the description is damaged"),
        ({"preprocessing": 5}, "preprocessing is damaged"),
        ({"preprocessing": {"image_shape": [3, 1, 1], "mean": [0], "std": [1]}}, "one value for each"),
    ],
)
def test_descriptions_that_lie_are_refused(changes, message, path):
    save(mlp(hidden=(8,)), path)
    with pytest.raises(FormatError, match=rf"^\S*model\.bnnz: .*{message}"):
        load(rewritten(path, **changes))


def test_a_description_of_another_network_than_the_tensors_is_refused_before_memory_is_taken(path):
    save(mlp(hidden=(8,)), path)
    large = {"class": "torch.nn.Linear", "arguments": {"in_features": 1 << 30, "out_features": 1 << 30}}
    with pytest.raises(MismatchError, match="of another model"):
        load(rewritten(path, network=large))
    save(mlp(hidden=(8,)), path)
    with pytest.raises(MemoryLimitError, match="above the limit of 1000"):
        load(path, memory_limit_bytes=1000)


BLOCK = {"class": "bnn.models.resnet_cifar._Block", "attributes": {}, "parts": {}}
FLATTEN = {"class": "torch.nn.Flatten", "arguments": {}}


@pytest.mark.parametrize(
    "network",
    [
        {"class": "torch.nn.ModuleList", "parts": {}},
        BLOCK,
        {**BLOCK, "attributes": {"double_skip": True, "pool": 3}},
        {"class": "torch.nn.Identity", "arguments": {}},
        {"class": "torch.nn.Flatten", "arguments": {"start_dim": 7}},
        {"class": "torch.nn.Sequential", "parts": {"0": FLATTEN, "1": {**FLATTEN, "arguments": {"start_dim": 0}}}},
        {"class": "torch.nn.AvgPool2d", "arguments": {"kernel_size": "x"}},
        {"class": "torch.nn.AvgPool2d", "arguments": {"kernel_size": -1}},
    ],
)
def test_a_network_that_does_not_fit_its_images_is_one_error(network, path, tmp_path):
    takes = Preprocessing(SHAPE, (0.5,) * 3, (0.25,) * 3)
    write(path, [], {"network": network, "preprocessing": takes.described(), "classes": ["a"]})
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(CodecError, match=r"the network fails on images of \[1, 3, 32, 32\]"):
        load(path).predict([tmp_path / "a.png"])


def test_names_of_classes_cannot_command_a_terminal(path):
    model = mlp(hidden=(8,))
    save(model, path, about=described(model, classes=["a\x1b[2J", "b"]))
    assert load(path).classes == ("a?[2J", "b")
    save(model, path, about={"obstacle": "\x1b[2J", "precision": "float32"})
    with pytest.raises(CodecError, match=r"is made \(\?\[2J\)"):
        load(path)
