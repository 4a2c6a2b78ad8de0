"""The recipe for pictures of one's own: what it does with any folder, and how it refuses others."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bnn
from bnn.cli import main
from bnn.data import RandomCrop, RandomFlip
from bnn.errors import DataError, RecipeError
from bnn.training import Trainer
from bnn.training.recipe import find_recipe, load_recipe, values_to_json
from bnn.weights import AccumulatorStore, LatentStore, named_stores

IMAGES = load_recipe(find_recipe("images"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey squares of two classes, four of each."""
    for label, name in enumerate(("dark", "bright")):
        place = tmp_path / "pets" / name
        place.mkdir(parents=True)
        for number in range(4):
            pixels = np.full((20 + number, 30), 150 * label + 10 * number, np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "pets"


def test_classes_sizes_and_colours(folder):
    run = IMAGES(data_dir=folder, image_size=16, model="resnet8")
    assert run.data.classes == ("bright", "dark")
    assert run.data.image_shape == (3, 16, 16)
    assert (len(run.data.train), len(run.data.test)) == (6, 2)
    assert IMAGES(data_dir=folder, image_size=16, model="resnet8", grey=True).data.image_shape == (1, 16, 16)
    assert len(IMAGES(data_dir=folder, image_size=16, model="resnet8", test_part=0.5).data.test) == 4


def test_presets_and_augmentation_are_options(folder):
    run = IMAGES(data_dir=folder, image_size=16, preset="edge-min")
    assert {type(store) for _, store in named_stores(run.model)} == {AccumulatorStore}
    assert run.augment == [RandomCrop(padding=2), RandomFlip()]
    run = IMAGES(data_dir=folder, image_size=16, flip=False, crop=False)
    assert {type(store) for _, store in named_stores(run.model)} == {LatentStore}
    assert run.augment == []


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("resnet8", 20, "resnet8 takes images of multiples of 8 pixels from 8 on, not 20"),
        ("resnete18", 48, "resnete18 takes images of multiples of 32 pixels from 32 on, not 48"),
        ("cnv", 31, "cnv takes images of multiples of 1 pixels from 32 on, not 31"),
    ],
)
def test_sizes_that_do_not_fit_the_network(model, size, message, folder):
    with pytest.raises(RecipeError, match=message):
        IMAGES(data_dir=folder, image_size=size, model=model)


@pytest.mark.parametrize("model", ["resnet8", "resnet20", "mlp", "cnv", "vgg_small"])
def test_every_size_that_is_said_to_fit_does(model, folder):
    size = {"mlp": 3, "cnv": 33}.get(model, 16)
    assert IMAGES(data_dir=folder, image_size=size, model=model).data.image_shape == (3, size, size)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_a_network_of_torchvision_is_trained_and_predicts(folder):
    run = IMAGES(data_dir=folder, image_size=32, model="torchvision:squeezenet1_1", preset="edge-min", epochs=1)
    Trainer(run, folder.parent / "run").fit()
    (guess,), *_ = bnn.load(folder.parent / "run" / "model.bnnz").predict([folder / "dark" / "0.png"])
    assert guess.name in ("dark", "bright")
    with pytest.raises(RecipeError, match="torchvision has no classifier 'resnet19', but there is 'resnet18'"):
        IMAGES(data_dir=folder, image_size=32, model="torchvision:resnet19")


@pytest.fixture
def trained(folder) -> Path:
    Trainer(IMAGES(data_dir=folder, image_size=16, model="resnet8", preset="edge-min", epochs=1), folder / "run").fit()
    return Path(shutil.move(folder / "run", folder.parent / "run"))


def test_a_training_begins_with_the_weights_of_another_of_other_classes_and_preset(folder, trained):
    shutil.copytree(folder / "dark", folder / "darker")
    options = {"data_dir": folder, "image_size": 16, "model": "resnet8", "epochs": 1}
    first = bnn.load(trained / "model.bnnz").network[1].first.product.store.read().dense()
    head = bnn.load(trained / "model.bnnz").network[7].weight  # of bright and dark, which come first
    for preset in ("edge-min", "edge", "standard"):
        for start in (trained, trained / "model.bnnz"):
            run = IMAGES(start=start, preset=preset, **options)
            assert torch.equal(run.model[1].first.product.store.read().dense(), first)
            (line,) = run.notes
            assert line.endswith(" layers begin with the weights that they had; 7 but for darker")
            assert torch.equal(run.model[7].weight[torch.tensor([0, 1])], head[torch.tensor([0, 1])])
    run = IMAGES(start=trained, freeze="2", preset="edge-min", **options)
    assert run.model.frozen == 3
    Trainer(run, folder.parent / "tuned").fit()
    model = bnn.load(folder.parent / "tuned" / "model.bnnz")
    assert torch.equal(model.network.parts["1"].first.product.store.read().dense(), first)
    again = IMAGES(start=folder.parent / "tuned", preset="edge-min", **options)
    assert torch.equal(again.model[1].first.product.store.read().dense(), first)


def test_the_network_is_that_of_the_start_and_another_size_is_said(folder, tmp_path):
    options = {"data_dir": folder, "image_size": 16, "epochs": 1}
    first, second = tmp_path / "first", tmp_path / "second"
    for out, more in ((first, {"model": "resnet20"}), (second, {"start": first})):
        trainer = Trainer(IMAGES(**options, **more), out)
        trainer.configuration = {"arguments": values_to_json(more)}
        trainer.fit()
    run = IMAGES(start=second, **options)
    assert [type(part) for part in run.model] == [type(part) for part in IMAGES(model="resnet20", **options).model]
    assert len(run.notes) == 1
    shutil.rmtree(first)
    with pytest.raises(RecipeError, match="second does not say which network it is: name it with --model"):
        IMAGES(start=second, **options)
    larger = IMAGES(start=second / "model.bnnz", model="resnet20", **options | {"image_size": 24})
    assert larger.notes[1].endswith("model.bnnz takes images of 3x16x16, these are 3x24x24")


def test_starts_that_do_not_fit_are_one_line(folder, trained, capsys):
    words = ["--image-size", "16", "--freeze", "2"]
    assert "say with --start what to begin with" in refused_start(words, folder, capsys)
    other = ["--image-size", "16", "--model", "mlp", "--start", str(trained)]
    assert "not one has the name and shape" in refused_start(other, folder, capsys)
    words += ["--start", str(trained), "--freeze", "7"]
    assert "nothing is left to train" in refused_start(words, folder, capsys)


def refused_start(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["train", "images", "--data-dir", str(folder), *words, "--out", str(folder.parent / "no")]) == 1
    assert not (folder.parent / "no").exists()
    errors = capsys.readouterr().err
    assert re.fullmatch(r"bnn: [^\n]+\n", errors)
    return errors


def test_one_class_is_none_to_tell_apart(folder):
    for path in (folder / "dark").iterdir():
        path.unlink()
    (folder / "dark").rmdir()
    with pytest.raises(DataError, match="has the one class bright"):
        IMAGES(data_dir=folder, image_size=16)


def refused(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    out = folder.parent / "run"
    status = main(["train", "images", "--data-dir", str(folder), *words, "--out", str(out)])
    assert status in (1, 2)
    assert not out.exists()
    errors = capsys.readouterr().err
    assert re.fullmatch(r"bnn: [^\n]+\n", errors)
    return errors


@pytest.mark.filterwarnings("default")
def test_bad_pictures_are_named_all_at_once_and_left_out_on_request(folder, capsys):
    words = ["--image-size", "16", "--model", "resnet8", "--epochs", "1"]
    (folder / "dark" / "9.jpg").write_bytes(b"no picture")
    (folder / "bright" / "8.jpg").write_bytes(b"")
    errors = refused(words, folder, capsys)
    for part in ("2 of 10 pictures cannot be decoded", "dark/9.jpg (", "bright/8.jpg (", "--skip-damaged"):
        assert part in errors
    words += ["--skip-damaged", "--out", str(folder.parent / "run")]
    assert main(["train", "images", "--data-dir", str(folder), *words]) == 0
    assert re.search(r"bnn: warning: 2 of 10 pictures [^\n]+; they are left out\n", capsys.readouterr().err)


def test_folders_that_cannot_be_trained_on(folder, capsys):
    assert "there is no folder" in refused([], folder / "gone", capsys)
    assert "has no class folders" in refused([], folder / "dark", capsys)
    assert "at least 1 pixel, got 0" in refused(["--image-size", "0"], folder, capsys)
    assert "lies between 0 and 1" in refused(["--test-part", "1"], folder, capsys)
    assert "resnet8" in refused(["--model", "resnet9"], folder, capsys)
    (folder / "empty").mkdir()
    (folder / "hollow").mkdir()
    assert f"{folder}/empty, {folder}/hollow have no images" in refused([], folder, capsys)
    for name in ("empty", "hollow"):
        Image.new("L", (9, 9)).save(folder / name / "0.png")
    assert "empty has 1 image, which cannot be both trained and tested on" in refused([], folder, capsys)
