"""Checkpoints: snapshots on disk that outlive a kill, a full disk and a flipped bit.

A checkpoint is a manifest and the file of tensors that it names:

    step-00001200.json                            step, JSON state and the SHA-256 of everything
    step-00001200-4f0c2a9be1d03375.safetensors    the tensors; the name carries the start of their SHA-256

A checkpoint exists once its manifest does. Both files are written under a temporary name, forced to disk, read back
and compared by hash before the first of them is renamed, the manifest last. The two newest checkpoints are kept.
Saving the same step again writes new files beside the old ones, so there is no moment without a whole checkpoint.

Nothing is unpickled, and the hashes are checked before any tensor is looked at. A folder has one writer at a time.
"""

import errno
import hashlib
import json
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bnn import files
from bnn.errors import CheckpointError
from bnn.training.snapshot import Snapshot

_FORMAT, _VERSION = "bnn-checkpoint", 3
_NAME = re.compile(r"step-[0-9]{8,}(\.json|-[0-9a-f]{16}\.safetensors)")
_READ_BYTES = 1 << 20
_ANEW = "start the run anew in another folder"
# Meters keep a bit a weight in the state.
_MANIFEST_BYTES = 1 << 29

# Names of the safetensors format.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class _DamagedError(CheckpointError):
    """A checkpoint that is not as it was written; an earlier one may serve."""


def save(directory: Path, snapshot: Snapshot) -> Path:
    """Writes a checkpoint, then removes all but it and the newest other one.

    Args:
        directory: made if missing.
        snapshot: what to keep.

    Returns:
        Path of the manifest.

    Raises:
        CheckpointError: the disk is full or not writable, or the snapshot holds what cannot be kept. Earlier
            checkpoints are intact.
    """
    if snapshot.step < 0:
        raise ValueError(f"a step is counted from 0, not {snapshot.step}")
    # The same names every time: what a killed save leaves behind is overwritten by the next one.
    new_tensors, new_manifest = directory / ".saving.safetensors", directory / ".saving.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        digest = _write(new_tensors, _safetensors(snapshot.tensors))
        manifest = directory / _manifest_name(snapshot.step)
        tensors = directory / _tensors_name(snapshot.step, digest)
        fields = {
            "format": _FORMAT,
            "version": _VERSION,
            "step": snapshot.step,
            "state": snapshot.state,
            "tensors": tensors.name,
            "tensors_sha256": digest,
            "tensors_bytes": new_tensors.stat().st_size,
        }
        _write(new_manifest, [_sealed(fields)])
        _rename(new_tensors, tensors)
        _rename(new_manifest, manifest)
        _prune(directory, {manifest, tensors})
    except OSError as error:
        raise CheckpointError(
            f"cannot save the checkpoint of step {snapshot.step}: {error}; earlier checkpoints are intact,"
            f" make room in {directory} or make it writable"
        ) from error
    finally:
        for temporary in (new_tensors, new_manifest):
            with suppress(OSError):
                temporary.unlink()
    return manifest


def load(directory: Path, *, refusal: Callable[[Snapshot], str | None] = lambda snapshot: None) -> Snapshot:
    """Reads the newest checkpoint, or the one before it, with a warning, if the newest is damaged or refused.

    Args:
        directory: of the checkpoints.
        refusal: says why a snapshot cannot serve, such as that it is not finite; None where it can.

    Returns:
        The snapshot, its tensors on the CPU.

    Raises:
        CheckpointError: there is no checkpoint, none is undamaged, or the newest cannot be opened or is of another
            version.
    """
    try:
        manifests = _manifests(directory)
    except OSError as error:
        raise CheckpointError(f"there are no checkpoints to read: {error}; {_ANEW}") from None
    if not manifests:
        raise CheckpointError(f"there is no checkpoint in {directory}; {_ANEW}")
    damages = []
    for manifest in manifests:
        try:
            snapshot = _read(manifest)
            reason = refusal(snapshot)
            if reason is not None:
                raise _DamagedError(f"{manifest} cannot be gone on from: {reason}")
        except _DamagedError as damage:
            damages.append(str(damage))
            continue
        if damages:
            message = f"{'; '.join(damages)}; going on from step {snapshot.step} instead"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return snapshot
    raise CheckpointError(f"{'; '.join(damages)}; no checkpoint is left, {_ANEW}")


def withdraw(directory: Path, step: int) -> int | None:
    """Removes the checkpoint of a step, if there is another undamaged one.

    Returns:
        The step of the other one; None where there is none, and nothing has been removed.
    """
    for manifest in _manifests(directory):
        if _step(manifest) == step:
            continue
        with suppress(CheckpointError):
            kept = {manifest, _verified(manifest)[1]}
            for path in _manifests_first(_files(directory)):
                if path not in kept and _step(path) == step:
                    path.unlink()
            return _step(manifest)
    return None


def _read(manifest: Path) -> Snapshot:
    fields, tensors = _verified(manifest)
    try:
        return Snapshot(fields["step"], load_file(tensors), fields["state"])
    except (OSError, SafetensorError) as error:
        raise _DamagedError(f"{tensors} is damaged: {error}") from None


def _verified(manifest: Path) -> tuple[dict[str, Any], Path]:
    """The manifest's fields and the path of the tensors, once every hash of the checkpoint is right."""
    try:
        fields = files.unsealed(files.read_bytes(manifest, limit_bytes=_MANIFEST_BYTES))
    except PermissionError as error:
        raise _unreadable(manifest, error) from None
    except (OSError, ValueError) as error:
        raise _DamagedError(f"{manifest} is damaged: {_reason(error)}") from None
    if (fields.get("format"), fields.get("version")) != (_FORMAT, _VERSION):
        raise CheckpointError(
            f"{manifest} is a {fields.get('format')!r} of version {fields.get('version')!r}, not a {_FORMAT!r} of"
            f" version {_VERSION}: go on with the release that wrote it, or move it out of the folder"
        )
    step, digest = _step(manifest), fields.get("tensors_sha256")
    name = _tensors_name(step, str(digest))
    # Nothing but a name that can belong to this manifest is ever opened.
    named = _NAME.fullmatch(name) and fields.get("tensors") == name
    counted = type(fields.get("step")) is int and fields["step"] == step
    if not named or not counted or not isinstance(fields.get("state"), dict):
        raise _DamagedError(f"{manifest} is damaged: it does not describe a checkpoint of step {step}")
    tensors = manifest.with_name(name)
    try:
        size = tensors.stat().st_size
        if fields.get("tensors_bytes", size) != size:
            raise _DamagedError(f"{tensors} is damaged: it has {size} bytes and not those of the checkpoint")
        if _sha256(tensors) != digest:
            raise _DamagedError(f"{tensors} is damaged: its SHA-256 is wrong")
    except PermissionError as error:
        raise _unreadable(tensors, error) from None
    except OSError as error:
        raise _DamagedError(f"{tensors} is damaged: {_reason(error)}") from None
    return fields, tensors


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    """Of a file that may well be whole: no earlier one takes its place."""
    return CheckpointError(f"{path} cannot be read: {_reason(error)}; make it readable, nothing is lost")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _sealed(fields: dict[str, Any]) -> bytes:
    try:
        return files.sealed(fields)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the state of a checkpoint must be made of JSON values: {error}") from None


def _safetensors(tensors: dict[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, tensor by tensor, so that only one at a time is ever copied.

    Layout: length of the header (uint64), header (JSON, padded to 8 bytes), values. Wide dtypes come first, which
    aligns every tensor.
    """
    header, end = {}, 0
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for name, tensor in ordered:
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"a checkpoint cannot keep {name!r}: its dtype is {tensor.dtype}")
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    yield struct.pack("<Q", len(raw)) + raw
    for _, tensor in ordered:
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> str:
    """Writes a file, forces it to disk and reads it back. Returns its SHA-256."""
    sha256 = hashlib.sha256()
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            sha256.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    if _sha256(path) != sha256.hexdigest():
        raise OSError(errno.EIO, "what was read back is not what was written", str(path))
    return sha256.hexdigest()


def _sha256(path: Path) -> str:
    sha256 = hashlib.sha256()
    with files.open_regular(path) as file:
        while chunk := file.read(_READ_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()


def _rename(source: Path, target: Path) -> None:
    """Renames a file, over an older one if there is one, and forces the new name to disk."""
    os.replace(source, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _prune(directory: Path, newest: set[Path]) -> None:
    """Removes all but the two files of the newest checkpoint and those of the newest other undamaged one."""
    kept = set(newest)
    for manifest in _manifests(directory):
        if manifest not in newest:
            with suppress(_DamagedError):
                kept |= {manifest, _verified(manifest)[1]}
                break
    # Manifests go first: what a kill leaves here are tensors that no manifest names.
    for path in _manifests_first(_files(directory)):
        if path not in kept:
            path.unlink()


def _manifests_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.suffix != ".json")


def _manifests(directory: Path) -> list[Path]:
    """The manifests of a folder, newest first."""
    manifests = [path for path in _files(directory) if path.suffix == ".json"]
    return sorted(manifests, key=_step, reverse=True)


def _files(directory: Path) -> list[Path]:
    """The files of every checkpoint in a folder."""
    return [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]


def _step(path: Path) -> int:
    return int(path.name.split("-")[1].removesuffix(".json"))


def _manifest_name(step: int) -> str:
    return f"step-{step:08d}.json"


def _tensors_name(step: int, digest: str) -> str:
    return f"step-{step:08d}-{digest[:16]}.safetensors"
