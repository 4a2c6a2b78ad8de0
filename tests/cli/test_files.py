"""`bnn compress`, `inspect` and `decompress`, as a user meets them."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bnn.cli import main
from bnn.codec import described, save
from bnn.models import mlp

DIGITS = str(Path(__file__).parents[2] / "recipes" / "digits.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    quick = ("--epochs", "1", "--width", "32", "--hidden-layers", "1")
    assert main(["train", DIGITS, *quick, "--out", str(out)]) == 0
    return out


def test_a_run_becomes_a_small_file_and_its_tensors_come_back(run, tmp_path, capsys):
    path, folder = tmp_path / "model.bnnz", tmp_path / "tensors"
    assert main(["compress", str(run), "-o", str(path)]) == 0
    assert re.search(r"bits?", capsys.readouterr().out)
    assert main(["inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert f"{path.stat().st_size}" in json.dumps(report)
    assert main(["decompress", str(path), "-o", str(folder)]) == 0
    (tensors,) = folder.glob("*.safetensors")
    assert any(set(tensor.unique().tolist()) <= {-1, 1} for tensor in load_file(tensors).values())


@pytest.mark.parametrize("words", [["eval"], ["predict", "picture.png"], ["compress", "-o", "small.bnnz"]])
def test_a_model_that_has_diverged_is_refused(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = mlp(input_shape=(1, 8, 8), hidden=(8,))
    with torch.no_grad():
        model.get_parameter("1.norm.weight")[3] = math.nan
    save(model, Path("bad.bnnz"), about=described(model, classes=list("abcdefghij")))
    assert main([words[0], "bad.bnnz", *words[1:]]) == 1
    errors = capsys.readouterr().err
    assert (
        errors == "bnn: bad.bnnz is of no use: its 1.norm.weight is not finite; train anew with a lower learning rate\n"
    )
    assert not Path("small.bnnz").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["inspect", "missing.bnnz"], "missing.bnnz"),
        (["decompress", "broken.bnnz", "-o", "out"], "broken.bnnz"),
        (["compress", "nowhere", "-o", "model.bnnz"], "nowhere"),
    ],
)
def test_what_cannot_be_read_is_one_line(words, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.bnnz").write_bytes(b"no model file at all")
    assert main(words) != 0
    errors = capsys.readouterr().err
    assert re.fullmatch(r"bnn: [^\n]+\n", errors), errors
    assert part in errors
