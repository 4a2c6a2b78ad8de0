"""Directories of runs in which somebody has put something else: one line, soon, and nothing is executed."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from bnn.files import sealed, unsealed
from bnn.training.directory import read_json
from tests.cli.command_line import assert_one_line

COMMANDS = {
    "config.json": ["eval run", "train --resume run --epochs 3", "compress run -o m.bnnz", "report run"],
    "model.bnnz": ["eval run", "compress run -o m.bnnz"],
    "metrics.jsonl": ["report run", "train --resume run --epochs 3"],
    "summary.json": ["report run"],
    "ledger.json": ["report run"],
}


@pytest.fixture
def soon():
    """Ends what waits."""

    def late(*_):
        raise AssertionError("it waits")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def put(kind: str, path: Path) -> None:
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(str(path))
        case "3 GiB":
            path.touch()
            os.truncate(path, 3 << 30)
        case "brackets":
            path.write_bytes(b"[" * 100_000 + b"\n")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket", "3 GiB", "brackets"])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_no_file_of_a_run(name, kind, finished, bnn, soon):
    put(kind, finished / name)
    for words in COMMANDS[name]:
        assert_one_line(bnn(*words.split()))
    assert not Path("m.bnnz").exists()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "3 GiB", "brackets"])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_what_is_no_checkpoint(kind, suffix, finished, bnn, soon):
    for path in (finished / "checkpoints").glob(f"*{suffix}"):
        put(kind, path)
    assert_one_line(bnn("train", "--resume", "run", "--epochs", "3"), "is damaged", "no checkpoint is left")


def test_what_stands_in_the_way_of_a_save_is_not_waited_for(finished, bnn, soon):
    for name in (".saving.json", ".saving.safetensors"):
        os.mkfifo(finished / "checkpoints" / name)
    assert bnn("train", "--resume", "run", "--epochs", "3")[0] == 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("arguments", None), ("arguments", {"preset": []}), ("data", {"train_images": 1e30}), ("data", 7), ("device", {})],
)
def test_wrong_types_in_the_configuration(name, wrong, finished, bnn):
    configuration = read_json(finished / "config.json")
    (finished / "config.json").write_text(json.dumps({**configuration, name: wrong}))
    for words in ("eval run", "train --resume run --epochs 3", "report run"):
        code, _, errors = bnn(*words.split())
        assert code == 0 or errors.count("\n") == 1, errors


@pytest.mark.parametrize("part", ["optimizer", "run"])
def test_a_manifest_with_the_right_seal_and_another_state(part, finished, bnn):
    for manifest in (finished / "checkpoints").glob("*.json"):
        fields = unsealed(manifest.read_bytes())
        manifest.write_bytes(sealed({**fields, "state": {**fields["state"], part: []}}))
    assert_one_line(bnn("train", "--resume", "run", "--epochs", "3"), "training state")


@pytest.mark.parametrize("target", ["", "/", "/dev/null", ".", "gone/m.bnnz"])
def test_where_a_model_cannot_go(target, finished, bnn):
    assert_one_line(bnn("compress", "run", "-o", target), "cannot be written")
    assert Path("/dev/null").is_char_device()
    assert not list(Path().glob(".bnn-*"))


def test_a_copy_of_a_recipe_is_whole_or_not_there(bnn, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert_one_line(bnn("recipes", "copy", "digits"), "digits.py cannot be written: No space left on device")
    assert not list(Path().iterdir())
    assert bnn("recipes", "copy", "digits")[0] == 0
    assert_one_line(bnn("recipes", "copy", "digits"), "File exists", "another file with -o")
