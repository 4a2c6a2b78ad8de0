"""The commands on real runs and files: what they write, print and refuse."""

import errno
import io
import json
import os
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from bnn.codec import commands, load_into, load_tensors, save
from bnn.codec.errors import CodecError, MemoryLimitError
from bnn.layers import BinaryLinear
from bnn.models import initialize, mlp
from bnn.quantizers import Ternary
from bnn.training import Trainer
from bnn.weights import LatentStore
from tests.training.tiny_runs import RUNS, tiny_dataset


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def printed(console: Console) -> str:
    return console.file.getvalue()


@pytest.fixture
def path(tmp_path) -> Path:
    """A file of a perceptron whose first layer is ternary and sparse, of 784-32-10."""
    model = mlp(hidden=(32,))
    model[1].product = BinaryLinear(
        784, 32, store=lambda shape: LatentStore(shape, quantizer=Ternary(threshold=0.07)), input_quantizer=None
    )
    initialize(model, generator=torch.Generator().manual_seed(0))
    save(model, tmp_path / "model.bnnz")
    return tmp_path / "model.bnnz"


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_a_trained_run_gives_the_same_logits_from_its_file(make, tmp_path, console):
    trained = Trainer(make(), tmp_path / "run")
    trained.fit()
    path = tmp_path / "model.bnnz"
    commands.compress(console, tmp_path / "run" / "model.bnnz", path)
    assert f"{path.stat().st_size:,} bytes" in " ".join(printed(console).split())
    fresh = make().model
    load_into(fresh, path)
    x = tiny_dataset().test.images.float() / 255
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), trained.run.model.eval()(x))


def test_decompress_writes_the_tensors_and_what_they_are(path, tmp_path):
    out = tmp_path / "some" / "folder"
    commands.decompress(path, out)
    assert sorted(file.name for file in out.iterdir()) == ["model.json", "model.safetensors"]
    written, expected = load_file(out / "model.safetensors"), load_tensors(path)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    assert [tensor["name"] for tensor in json.loads((out / "model.json").read_text())["tensors"]] == list(expected)


def test_decompress_refuses_what_would_lose_something(path, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("kept")
    with pytest.raises(CodecError, match="out is not empty: name another folder"):
        commands.decompress(path, out)
    assert [file.name for file in out.iterdir()] == ["mine"]
    with pytest.raises(CodecError, match="cannot be written"):
        commands.decompress(path, out / "mine")
    with pytest.raises(MemoryLimitError):
        commands.decompress(path, tmp_path / "other", memory_limit_bytes=1000)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("writes", [1, 2])
def test_decompress_on_a_full_disk_can_be_tried_again(writes, path, tmp_path, monkeypatch):
    synced = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2 * writes - 1:  # each file is followed by its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CodecError, match="out cannot be written: No space left on device"):
            commands.decompress(path, tmp_path / "out")
    assert len(synced) == 2 * writes - 1
    assert not list((tmp_path / "out").iterdir())
    commands.decompress(path, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_decompress_on_a_disk_that_turns_read_only_between_its_files_can_be_done_again(path, tmp_path, monkeypatch):
    out, renamed = tmp_path / "out", []
    replace = os.replace

    def read_only(*names: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def replace_once(source: Path, target: Path) -> None:
        if renamed:
            read_only()
        renamed.append(target.name)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_once)
        patch.setattr(os, "unlink", read_only)
        with pytest.raises(CodecError, match="out cannot be written: Read-only file system"):
            commands.decompress(path, out)
    assert renamed == ["model.json"]
    assert (out / "model.json").exists()
    commands.decompress(path, out)
    assert sorted(file.name for file in out.iterdir()) == ["model.json", "model.safetensors"]
    with pytest.raises(CodecError, match="out is not empty"):
        commands.decompress(path, out)


def test_decompress_takes_no_other_description_for_its_own(path, tmp_path):
    out = tmp_path / "out"
    commands.decompress(path, out)
    (out / "model.safetensors").unlink()
    mine = (out / "model.json").read_text().replace("784", "785")
    (out / "model.json").write_text(mine)
    with pytest.raises(CodecError, match="out is not empty"):
        commands.decompress(path, out)
    assert (out / "model.json").read_text() == mine


def test_a_file_that_takes_too_much_memory_is_not_compressed(path, tmp_path, console):
    with pytest.raises(MemoryLimitError, match="raise the limit"):
        commands.compress(console, path, tmp_path / "again.bnnz", memory_limit_bytes=1000)
    assert not (tmp_path / "again.bnnz").exists()


def test_inspect_as_json_adds_up_to_the_file(path, console):
    commands.inspect(console, path, as_json=True)
    told = json.loads(printed(console))
    assert told["file_bytes"] == path.stat().st_size
    tensors = {tensor["name"]: tensor for tensor in told["tensors"]}
    assert sum(tensor["bytes"] for tensor in tensors.values()) + told["header_bytes"] == told["file_bytes"]
    assert told["weight_bytes"] + told["other_bytes"] + told["header_bytes"] == told["file_bytes"]
    assert told["weights"] == 784 * 32 + 32 * 10
    assert told["bits_per_weight"] == 8 * told["weight_bytes"] / told["weights"]
    weight = tensors["1.product.store.weight"]
    assert (weight["shape"], weight["dtype"], weight["levels"]) == ([32, 784], "float32", [-1, 0, 1])
    assert weight["coding"] == "context"
    assert weight["bits_per_element"] < 1.03 * weight["entropy_bits_per_element"]
    # Normal latents of deviation 1/28 exceed 0.07, which is 1.96 of them, in one of twenty: h2(0.05) + 0.05.
    assert weight["entropy_bits_per_element"] == pytest.approx(0.336, rel=0.03)
    assert tensors["1.norm.weight"]["entropy_bits_per_element"] is None
    assert tensors["1.norm.weight"]["levels"] == []


def test_inspect_as_a_table(path, console):
    commands.inspect(console, path)
    lines = printed(console)
    for part in (
        "1.product.store.weight",
        "32x784",
        "3 levels",
        "context",
        "float32",
        "entropy",
        f"{path.stat().st_size:,} bytes",
    ):
        assert part in lines


def test_inspect_of_a_file_without_weights(tmp_path, console):
    path = tmp_path / "[bold]model.bnnz"
    save(torch.nn.Linear(3, 3), tmp_path / "linear.bnnz")
    commands.compress(console, tmp_path / "linear.bnnz", path)
    assert "12 other values" in " ".join(printed(console).split())
    assert "[bold]model.bnnz: " in printed(console)
    commands.inspect(console, path, as_json=True)
    commands.inspect(console, path)


def test_compressing_a_quick_file_gives_the_short_one(tmp_path, console):
    model = mlp(hidden=(32,))
    initialize(model, generator=torch.Generator().manual_seed(0))
    quick, short, again = (tmp_path / f"{name}.bnnz" for name in ("quick", "short", "again"))
    for narrowed in (None, torch.float16):
        assert save(model, quick, quick=True) > save(model, short, float_dtype=narrowed)
        commands.compress(console, quick, again, float_dtype=narrowed)
        assert again.read_bytes() == short.read_bytes()


def test_inspect_keeps_to_the_memory_that_is_allowed(path, console):
    with pytest.raises(MemoryLimitError):
        commands.inspect(console, path, memory_limit_bytes=1000)
