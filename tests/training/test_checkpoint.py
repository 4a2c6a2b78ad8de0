"""A checkpoint gives back what it was given; saving keeps two, and never passes through a moment without one."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.training.checkpoint import load, save
from bnn.training.snapshot import Snapshot
from tests.copies import run_in_a_copy

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def snapshot(step: int, value: int = 0) -> Snapshot:
    return Snapshot(step, {"weight": torch.full((3, 5), float(value))}, {"value": value})


def value_of(loaded: Snapshot) -> int:
    assert (loaded.tensors["weight"] == loaded.state["value"]).all()
    return loaded.state["value"]


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 0, 3), (3, 4, 5)])
def test_every_dtype_round_trips_bit_by_bit(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    itemsize = torch.empty((), dtype=dtype).element_size()
    # Any bits at all: NaN with payloads, infinities and subnormals among them.
    tensor = torch.randint(0, 256, (*shape, itemsize), generator=generator, dtype=torch.uint8)
    tensor = (tensor[..., 0] > 127) if dtype is torch.bool else tensor.view(dtype)[..., 0]
    save(tmp_path, Snapshot(1, {"x": tensor, "other": torch.ones(3, dtype=torch.int8)}, {}))
    loaded = load(tmp_path).tensors["x"]
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    assert raw(loaded) == raw(tensor)


def test_nan_and_negative_zero_survive(tmp_path: Path) -> None:
    tensor = torch.tensor([float("nan"), -0.0, float("inf")])
    save(tmp_path, Snapshot(1, {"x": tensor}, {"loss": float("nan"), "best": float("-inf")}))
    loaded = load(tmp_path)
    assert raw(loaded.tensors["x"]) == raw(tensor)
    assert loaded.state["loss"] != loaded.state["loss"]
    assert loaded.state["best"] == float("-inf")


def test_views_and_shared_storage_round_trip(tmp_path: Path) -> None:
    base = torch.arange(24.0).view(2, 3, 4)
    tensors = {
        "base": base,
        "alias": base,
        "transposed": base.transpose(0, 2),
        "slice": base[1, 1:],
        "strided": base[..., ::2],
        "channels last": torch.arange(16.0).view(1, 2, 2, 4).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    save(tmp_path, Snapshot(1, tensors, {}))
    loaded = load(tmp_path).tensors
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_loaded_tensors_are_aligned(tmp_path: Path) -> None:
    tensors = {f"{order}": torch.ones(3, dtype=dtype) for order, dtype in enumerate(reversed(DTYPES))}
    for extra in range(8):  # headers of every length
        save(tmp_path, Snapshot(extra, {**tensors, "n" * (1 + extra): torch.ones(1, dtype=torch.bool)}, {}))
        loaded = load(tmp_path).tensors.values()
        assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in loaded)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(state=st.dictionaries(st.text(), JSON, max_size=4), step=st.integers(0, 10**12))
def test_every_json_state_round_trips(
    state: dict[str, object], step: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("state")
    save(directory, Snapshot(step, {}, state))
    assert load(directory) == Snapshot(step, {}, state)


def test_the_files_are_the_documented_ones(tmp_path: Path) -> None:
    manifest = save(tmp_path / "run" / "checkpoints", snapshot(1200, 7))
    assert manifest.name == "step-00001200.json"
    fields = json.loads(manifest.read_text())
    tensors = manifest.with_name(fields["tensors"])
    assert names(manifest.parent) == sorted([manifest.name, tensors.name])
    assert (fields["format"], fields["version"], fields["step"]) == ("bnn-checkpoint", 3, 1200)
    assert fields["state"] == {"value": 7}
    assert re.fullmatch(r"step-00001200-[0-9a-f]{16}\.safetensors", tensors.name)
    assert hashlib.sha256(tensors.read_bytes()).hexdigest() == fields["tensors_sha256"]
    seal = fields.pop("sha256")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(canonical).hexdigest() == seal


def test_the_same_state_makes_the_same_bytes(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", snapshot(1)), save(tmp_path / "b", snapshot(1))
    assert names(first.parent) == names(second.parent)
    assert all(
        (second.parent / name).read_bytes() == (first.parent / name).read_bytes() for name in names(first.parent)
    )


def test_changing_a_loaded_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1, 3))
    load(tmp_path).tensors["weight"].zero_()
    assert value_of(load(tmp_path)) == 3


def test_a_loaded_snapshot_outlives_its_file(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1, 1))
    loaded = load(tmp_path)
    for step in (2, 3):
        save(tmp_path, snapshot(step, step))
    assert value_of(loaded) == 1


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / "step-notes.txt").write_text("the user's own")
    for step in (1, 2, 3, 99_999_999, 100_000_000):
        save(tmp_path, snapshot(step, step))
        assert value_of(load(tmp_path)) == step
    left = [name for name in names(tmp_path) if name.endswith(".json")]
    assert left == ["step-100000000.json", "step-99999999.json"]
    assert len(names(tmp_path)) == 5


def test_a_damaged_checkpoint_is_not_one_of_the_two(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1))
    save(tmp_path, snapshot(2)).write_text("{}")
    save(tmp_path, snapshot(3))
    assert [name for name in names(tmp_path) if name.endswith(".json")] == [
        "step-00000001.json",
        "step-00000003.json",
    ]


def test_saving_an_earlier_step_keeps_it(tmp_path: Path) -> None:
    for step in (8, 10, 9):
        save(tmp_path, snapshot(step, step))
    assert value_of(load(tmp_path)) == 10
    assert (tmp_path / "step-00000009.json").exists()


@pytest.mark.parametrize("step", [5, 6])
def test_an_interruption_at_any_point_leaves_a_whole_checkpoint(step: int, tmp_path: Path) -> None:
    """Interrupts a save at each of its operations in turn, when the same step is on disk already and when not."""
    for stop in itertools.count():
        directory = tmp_path / str(stop)
        save(directory, snapshot(5, 1))
        try:
            with interrupted_at(stop):
                save(directory, snapshot(step, 2))
        except KeyboardInterrupt:
            assert value_of(load(directory)) in {1, 2}
            save(directory, snapshot(7, 3))
            assert value_of(load(directory)) == 3
            assert len(names(directory)) == 4
        else:
            break
    assert value_of(load(directory)) == 2
    assert stop > 8


@contextmanager
def interrupted_at(stop: int) -> Iterator[None]:
    """Raises KeyboardInterrupt in place of the operation of this number that works on the disk."""
    count = itertools.count()

    def interruptible(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if next(count) == stop:
                raise KeyboardInterrupt
            return operation(*args, **kwargs)

        return run

    with pytest.MonkeyPatch.context() as patching:
        for owner, name in (
            (os, "fsync"),
            (os, "replace"),
            (Path, "open"),
            (Path, "unlink"),
            (Path, "read_bytes"),
        ):
            patching.setattr(owner, name, interruptible(getattr(owner, name)))
        yield


# Kills a process that does nothing but save, the same step over and over in every other trial.
KILL = """
import itertools, os, random, signal, sys, time, warnings
from pathlib import Path
import torch
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import Snapshot

warnings.simplefilter("error")
torch.set_num_threads(1)
directory, trials = Path(sys.argv[1]), int(sys.argv[2])
choose, littered = random.Random(0), 0

def snapshot(step, value):
    tensors = {str(i): torch.full((50_000,), value, dtype=torch.int32) for i in range(4)}
    return Snapshot(step, tensors, {"value": value})

for trial in range(trials):
    base = trial * 1_000_000
    save(directory, snapshot(base, 0))
    assert len(list(directory.iterdir())) <= 4, "litter is left"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for value in itertools.count(1):
            save(directory, snapshot(base if trial % 2 else base + value, value))
            os.write(writer, value.to_bytes(8, "little"))
    os.close(writer)
    time.sleep(choose.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        finished = int.from_bytes(pipe.read()[-8:], "little")
    littered += len(list(directory.iterdir())) > 4
    loaded = load(directory)
    assert loaded.state["value"] in (finished, finished + 1), "a finished checkpoint is lost"
    assert all((tensor == loaded.state["value"]).all() for tensor in loaded.tensors.values())
print(littered)
"""


def killed_saves(trials: int, directory: Path) -> int:
    """Runs the trials and returns how many left files behind that the next save had to clear."""
    status, printed = run_in_a_copy(KILL, str(directory), str(trials))
    assert status == 0, printed
    return int(printed)


def test_a_killed_save_loses_nothing(tmp_path: Path) -> None:
    assert killed_saves(20, tmp_path) > 0


@pytest.mark.slow
def test_a_thousand_killed_saves_lose_nothing(tmp_path: Path) -> None:
    assert killed_saves(1000, tmp_path) > 100
