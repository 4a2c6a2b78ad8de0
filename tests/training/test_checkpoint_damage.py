"""Damaged, foreign and hostile checkpoints, and disks that refuse: an error says so, and earlier ones survive."""

import errno
import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from bnn.errors import CheckpointError
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import Snapshot
from tests.copies import run_in_a_copy


def snapshot(step: int) -> Snapshot:
    weight = torch.arange(40, dtype=torch.float32) + step
    return Snapshot(step, {"weight": weight, "signs": torch.arange(9) > step}, {"loss": 1.5e-7, "note": "é\n"})


def save_two(directory: Path) -> tuple[Path, Path]:
    """Saves steps 1 and 2; returns the two files of step 2."""
    save(directory, snapshot(1))
    manifest = save(directory, snapshot(2))
    return manifest, directory / json.loads(manifest.read_text())["tensors"]


def assert_falls_back(directory: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"^\S*step-00000002\S* is damaged: .*; going on from step 1 instead$"):
        loaded = load(directory)
    assert loaded.step == 1
    assert torch.equal(loaded.tensors["weight"], snapshot(1).tensors["weight"])


def forge(directory: Path, payload: bytes = b"", **changes: Any) -> Path:
    """Writes a checkpoint of step 2 by hand, every hash right, with other fields or payload than `save` would."""
    digest = hashlib.sha256(payload).hexdigest()
    fields = {"format": "bnn-checkpoint", "version": 3, "step": 2, "state": {}}
    fields |= {"tensors": f"step-00000002-{digest[:16]}.safetensors", "tensors_sha256": digest, **changes}
    (directory / f"step-00000002-{digest[:16]}.safetensors").write_bytes(payload)
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    sealed = {**fields, "sha256": hashlib.sha256(canonical).hexdigest()}
    manifest = directory / "step-00000002.json"
    manifest.write_text(json.dumps(sealed, sort_keys=True, separators=(",", ":")))
    return manifest


@pytest.mark.parametrize("which", [0, 1], ids=["manifest", "tensors"])
def test_every_flipped_bit_is_found(which: int, tmp_path: Path) -> None:
    file = save_two(tmp_path)[which]
    intact = file.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(intact)), 400):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        assert_falls_back(tmp_path)


@pytest.mark.parametrize("which", [0, 1], ids=["manifest", "tensors"])
def test_every_truncation_and_extension_is_found(which: int, tmp_path: Path) -> None:
    file = save_two(tmp_path)[which]
    intact = file.read_bytes()
    for length in range(0, len(intact), 3):
        file.write_bytes(intact[:length])
        assert_falls_back(tmp_path)
    for tail in (b"\0", b" ", b"\n"):
        file.write_bytes(intact + tail)
        assert_falls_back(tmp_path)
    file.unlink()
    if which:
        assert_falls_back(tmp_path)
    else:
        assert load(tmp_path).step == 1


@pytest.mark.parametrize("raw", [b"[]", b"null", b"{}", b"[" * 100_000, b"9" * 5000, b"\xff", b'{"sha256":"x"}'])
def test_a_manifest_that_is_none_is_damaged(raw: bytes, tmp_path: Path) -> None:
    save_two(tmp_path)[0].write_bytes(raw)
    assert_falls_back(tmp_path)


def test_files_of_two_checkpoints_do_not_mix(tmp_path: Path) -> None:
    manifest, tensors = save_two(tmp_path)
    earlier = next(tmp_path.glob("step-00000001-*"))
    shutil.copy(earlier, tensors)
    assert_falls_back(tmp_path)
    shutil.copy(tmp_path / "step-00000001.json", manifest)
    assert_falls_back(tmp_path)


def test_damage_to_all_is_an_error_that_names_the_newest(tmp_path: Path) -> None:
    for path in save_two(tmp_path):
        path.write_bytes(b"")
    (tmp_path / "step-00000001.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000002\.json is damaged.*no checkpoint is left") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_no_checkpoint_is_an_error_that_says_how_to_go_on(kind: str, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    if kind == "empty":
        directory.mkdir()
    elif kind == "file":
        directory.touch()
    with pytest.raises(CheckpointError, match=f"{directory}.*start the run anew"):
        load(directory)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_what_may_not_be_read_is_not_called_damaged(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_two(tmp_path)
    newest = max(tmp_path.glob(f"*{suffix}"))
    plain = io.open

    def guarded(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file) == str(newest):
            raise PermissionError(errno.EACCES, "Permission denied", str(newest))
        return plain(file, *args, **kwargs)

    # As for a user who may not; whoever is root may always.
    monkeypatch.setattr(io, "open", guarded)
    with pytest.raises(CheckpointError, match=f"^{newest} cannot be read: Permission denied; make it readable"):
        load(tmp_path)


@pytest.mark.parametrize("changes", [{"version": 4}, {"version": None}, {"format": "other"}])
def test_another_format_or_version_is_refused_and_left_alone(changes: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path, snapshot(1))
    manifest = forge(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=f"{manifest} is a .*move it out of the folder"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match=f"{manifest} is a .*move it out of the folder"):
        save(tmp_path, snapshot(3))
    assert manifest.exists()
    assert (tmp_path / "step-00000001.json").exists()


def test_a_checkpoint_of_version_1_is_refused_by_name(tmp_path: Path) -> None:
    payload = safetensors_bytes({"weight": torch.ones(1)})
    manifest = forge(tmp_path, payload, version=1)
    refused = (
        f"^{manifest} is a 'bnn-checkpoint' of version 1, not a 'bnn-checkpoint' of version 3: go on with the release"
        " that wrote it, or move it out of the folder$"
    )
    with pytest.raises(CheckpointError, match=refused):
        load(tmp_path)
    forge(tmp_path, payload)
    assert load(tmp_path).step == 2, "but for its version it is a whole checkpoint"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


HEADER = json.dumps({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
OVERLAP = {"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}
OVERLAP["y"] = {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}
HUGE = json.dumps({"x": {"dtype": "U8", "shape": [2**62], "data_offsets": [0, 2**62]}}).encode()
HOSTILE = {
    "empty": b"",
    "pickle bomb": pickle.dumps(Bomb()),
    "pickled zip": b"PK\x03\x04" + pickle.dumps(Bomb()),
    "random": random.Random(1).randbytes(4000),
    "header of 2**64 - 1 bytes": b"\xff" * 8 + HEADER,
    "header past the end": struct.pack("<Q", 10**6) + HEADER,
    "tensor past the end": struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0",
    "tensor of 2**62 bytes": struct.pack("<Q", len(HUGE)) + HUGE,
    "overlap": struct.pack("<Q", len(json.dumps(OVERLAP))) + json.dumps(OVERLAP).encode() + b"\0" * 6,
    "trailing bytes": safetensors_bytes({"x": torch.ones(1)}) + b"\0" * 8,
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("hashes", ["right", "wrong"])
def test_hostile_payloads_are_refused(
    payload: bytes, hashes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if hashes == "right":
        save(tmp_path, snapshot(1))
        forge(tmp_path, payload)
    else:
        save_two(tmp_path)[1].write_bytes(payload)
    assert_falls_back(tmp_path)
    assert not Path("exploded").exists()


MALFORMED: list[dict[str, Any]] = [
    {"tensors": "../outside.safetensors"},
    {"tensors": "/etc/passwd"},
    {"tensors": None},
    {"tensors_sha256": "/../../outside" + "0" * 50, "tensors": "step-00000002-/../../outside00.safetensors"},
    {"tensors_sha256": None},
    {"tensors_sha256": ["0" * 64]},
    {"step": 3},
    {"step": "2"},
    {"state": [1]},
]


@pytest.mark.parametrize("changes", MALFORMED)
def test_malformed_manifests_with_right_hashes_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    save(directory, snapshot(1))
    payload = safetensors_bytes({"x": torch.ones(1)})
    (tmp_path / "outside.safetensors").write_bytes(payload)
    forge(directory, payload)
    assert load(directory).step == 2
    forge(directory, payload, **changes)
    assert_falls_back(directory)


def test_what_cannot_be_kept_is_named_and_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1))
    for tensors, state, message in (
        ({"x": torch.ones(1, dtype=torch.complex64)}, {}, r"cannot keep 'x': its dtype is torch\.complex64"),
        ({}, {"x": torch.ones(1)}, "made of JSON values: Object of type Tensor"),
        ({}, {"x": {1: 1, "1": 1}}, "made of JSON values"),
    ):
        with pytest.raises(CheckpointError, match=message):
            save(tmp_path, Snapshot(2, tensors, state))
        assert load(tmp_path).step == 1
        assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="not -1"):
        save(tmp_path, snapshot(-1))


FULL = """
import resource, sys
from pathlib import Path
import torch
from bnn.errors import CheckpointError
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import Snapshot

directory = Path(sys.argv[1])
save(directory, Snapshot(1, {"x": torch.zeros(10)}, {}))
for limit, tensors, state in ((100_000, 50_000, 0), (100_000, 10, 200_000), (20_000, 10_000, 0)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(directory, Snapshot(2, {"x": torch.ones(tensors)}, {"x": "x" * state}))
    except CheckpointError as error:
        print(error)
    else:
        sys.exit("a full disk went unnoticed")
    assert len(list(directory.iterdir())) == 2, "litter is left"
    assert load(directory).step == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
save(directory, Snapshot(2, {"x": torch.ones(50_000)}, {}))
assert load(directory).step == 2
"""


def test_a_full_disk_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    status, printed = run_in_a_copy(FULL, str(tmp_path))
    assert status == 0, printed
    lines = printed.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert re.fullmatch(r"cannot save the checkpoint of step 2: .*File too large.*make room in .*", line)


def test_what_is_read_back_must_be_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, snapshot(1))
    monkeypatch.setattr(os, "fsync", lambda file: os.pwrite(file, b"\1", 3))  # the medium changes a byte
    with pytest.raises(CheckpointError, match="read back is not what was written"):
        save(tmp_path, snapshot(2))
    monkeypatch.undo()
    assert load(tmp_path).step == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot save the checkpoint of step 1: .*make it writable"):
        save(tmp_path / "file" / "checkpoints", snapshot(1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="Permission denied"):
            save(tmp_path, snapshot(2))
        assert load(tmp_path).step == 1
    finally:
        tmp_path.chmod(0o700)
