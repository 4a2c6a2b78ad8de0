"""Everything that the package writes, each with what has to be there when the writing was cut off anywhere."""

import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

from benchmarks.torture.runs import PRESETS, RUNS, difference, results, whole
from benchmarks.torture.trials import quiet, require, scratch
from bnn.cli import main
from bnn.codec import save as save_model
from bnn.codec.model import load_tensors
from bnn.data.folder import image_folder
from bnn.data.shards import sharded, write_shards
from bnn.errors import BnnError, CheckpointError, RunError
from bnn.training import Trainer, checkpoint, directory
from bnn.training.snapshot import Snapshot

DIGITS = ("digits", "--epochs", "2", "--width", "16", "--hidden-layers", "1", "--batch-size", "256")


@dataclass(frozen=True)
class Write:
    """Something that is written in the current folder."""

    act: Callable[[], object]
    """Writes; raises a `BnnError` or gives a status that is not 0 where it cannot."""
    check: Callable[[], None]
    """Breaks the trial unless what was there before, or what was to be, is there, and the writing can be done again."""


def a_checkpoint(chance: Random, folder: Path) -> Write:
    """A checkpoint after earlier ones, or once more of the same step."""
    before = [_snapshot(step, chance) for step in range(chance.randint(0, 3))]
    for snapshot in before:
        checkpoint.save(folder, snapshot)
    again = bool(before) and chance.random() < 1 / 3
    new = _snapshot(len(before) - again, chance)

    def check() -> None:
        allowed = [*before[-1:], new]
        try:
            found = checkpoint.load(folder)
        except CheckpointError as error:
            require(not before, f"no checkpoint is left: {error}")
        else:
            require(any(_same(found, snapshot) for snapshot in allowed), "a checkpoint is neither the old nor the new")
        last = _snapshot(new.step + 1, chance)
        checkpoint.save(folder, last)
        require(_same(checkpoint.load(folder), last), "what was saved next is not what is loaded")
        require(len(_files(folder)) <= 4, f"litter is left: {_files(folder)}")

    return Write(lambda: checkpoint.save(folder, new), check)


def _snapshot(step: int, chance: Random) -> Snapshot:
    generator = torch.Generator().manual_seed(chance.randrange(2**31))
    tensors = {"weight": torch.randn(chance.randint(1, 20_000), generator=generator), "signs": torch.arange(9) > step}
    return Snapshot(step, tensors, {"loss": chance.random(), "note": "é\n"})


def _same(one: Snapshot, other: Snapshot) -> bool:
    return (one.step, one.state) == (other.step, other.state) and _equal(one.tensors, other.tensors)


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def a_training(chance: Random, folder: Path) -> Write:
    """A whole training, which saves at every step or at the end of every epoch."""
    name = chance.choice(["adam", "recu", *PRESETS])
    every_s = chance.choice([0.0, 1e9])
    make = partial(_trainer, name, folder / "run", every_s)
    return Write(lambda: make().fit(), lambda: goes_on(make, folder / "run", whole(name)))


def _trainer(name: str, out: Path, every_s: float) -> Trainer:
    return Trainer(RUNS[name](), out, checkpoint_every_s=every_s)


def goes_on(make: Callable[[], Trainer], out: Path, expected: dict[str, object]) -> None:
    """Resumes a run, or starts it where it had not begun: it ends as if nothing had happened."""
    try:
        with quiet():
            make().resume()
    except CheckpointError as error:
        require("anew" in str(error), f"an interrupted run does not go on: {error}")
        start_anew(make, out)
    except RunError as error:
        if "is complete" not in str(error):
            require(not (out / directory.CHECKPOINTS).exists(), f"an interrupted run does not go on: {error}")
            start_anew(make, out)
    differs = difference(results(out), expected)
    require(not differs, f"the run that went on differs in {differs}")
    litter = [path.name for path in out.rglob(".*")]
    require(not litter, f"litter is left: {litter}")


def start_anew(make: Callable[[], Trainer], out: Path) -> None:
    """Starts a run in the folder of one that never came to its first checkpoint."""
    try:
        make().fit()
    except BnnError as error:
        require(False, f"a dead end: --resume says to start anew, and a start says: {error}")


def a_command(chance: Random, folder: Path) -> Write:
    """`bnn train` with all its meters."""

    def check() -> None:
        with quiet() as errors:
            status = main(["train", "--resume", "run"])
            if status and ("anew" in errors.getvalue() or not Path("run", directory.CHECKPOINTS).exists()):
                status = main(["train", *DIGITS, "--out", "run"])
        complete = "is complete" in errors.getvalue()
        require(status == 0 or complete, f"bnn train does not go on: {errors.getvalue()}")
        differs = difference(results(Path("run")), results(trained()))
        require(not differs, f"the run that went on differs in {differs}")

    return Write(lambda: run_quietly(["train", *DIGITS, "--out", "run"]), check)


def run_quietly(words: Sequence[str]) -> None:
    """Runs a command; one that fails raises with the one line that it prints."""
    with quiet() as errors:
        status = main(list(words))
    if status:
        text = errors.getvalue()
        require(text.count("\n") == 1 and text.startswith("bnn: "), f"bnn {words[0]} does not say one line: {text}")
        raise BnnError(text)


@cache
def trained() -> Path:
    """A complete run of the bundled digits, not to be changed."""
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    with quiet() as errors:
        status = main(["train", *DIGITS, "--out", str(folder / "run")])
    assert status == 0, errors.getvalue()
    return folder / "run"


@cache
def interrupted() -> Path:
    """A run of three epochs that a signal ended after two, with two checkpoints, not to be changed."""
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    save_model_of = Trainer.save_model

    def save_and_leave(trainer: Trainer) -> None:
        save_model_of(trainer)
        if trainer.epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    with quiet() as errors, patch.object(Trainer, "save_model", save_and_leave):
        status = main(["train", *DIGITS, "--epochs", "3", "--out", str(folder / "run")])
    assert status == 143, errors.getvalue()
    return folder / "run"


def a_model_file(chance: Random, folder: Path) -> Write:
    """The model file of a network, over an older one."""
    old, new = (RUNS["recu"]().model for _ in range(2))
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.neg_()
    path, quick = folder / "model.bnnz", chance.random() < 0.5
    for module, name in ((old, "old"), (new, "new")):
        save_model(module, path.with_name(name), quick=quick)
    allowed = [load_tensors(folder / name) for name in ("old", "new")]
    save_model(old, path, quick=quick)

    def check() -> None:
        require(any(_equal(load_tensors(path), tensors) for tensors in allowed), "a model is neither old nor new")
        save_model(new, path)
        require(_equal(load_tensors(path), allowed[1]), "what was saved next is not what is loaded")
        require(not list(folder.glob(".*")), "litter is left")

    return Write(lambda: save_model(new, path, quick=quick), check)


def a_compression(chance: Random, folder: Path) -> Write:
    """`bnn compress` to a new or an older file, `bnn decompress` to a folder."""
    run = trained()
    if chance.random() < 0.5:
        words = ["compress", str(run), "-o", "model.bnnz"]
        if chance.random() < 0.5:
            run_quietly(words)
    else:
        words = ["decompress", str(run / directory.MODEL), "-o", "tensors"]

    def check() -> None:
        if words[0] == "compress" and Path("model.bnnz").exists():
            run_quietly(["inspect", "model.bnnz"])
        if words[0] == "decompress" and sorted(_files(Path("tensors"))) == ["model.json", "model.safetensors"]:
            json.loads(Path("tensors/model.json").read_text())
            return
        try:
            run_quietly(words)
        except BnnError as error:
            require(False, f"it cannot be done again: {error}")

    return Write(lambda: run_quietly(words), check)


def a_quantization(chance: Random, folder: Path) -> Write:
    """`bnn quantize` to a new file."""
    words = ["quantize", str(trained()), "--fit", "2kB", "--nearest", "--examples", "8", "-o", "small.bnnz"]

    def check() -> None:
        if not Path("small.bnnz").exists():
            run_quietly(words)
        run_quietly(["inspect", "small.bnnz"])
        require(not list(folder.glob(".*")), "litter is left")

    return Write(lambda: run_quietly(words), check)


def a_folder_of_shards(chance: Random, folder: Path) -> Write:
    """Shards of pictures, three of each part."""
    draw_pictures(folder / "pictures", chance, count=3)
    write = partial(write_shards, folder / "pictures", folder / "shards", images_per_shard=2, shorter_side=8)

    def check() -> None:
        expected = write_shards(folder / "pictures", folder / "others", images_per_shard=2, shorter_side=8)
        require(write().described() == expected.described(), "what was gone on with has other facts")
        for part in ("train", "test"):
            one, other = (sharded(folder / name, size=8) for name in ("shards", "others"))
            pixels = [getattr(data, part).images[:] for data in (one, other)]
            require(torch.equal(*pixels), "what was gone on with has other pixels")
        require(sorted(_files(folder / "shards")) == sorted(_files(folder / "others")), "litter is left")

    return Write(write, check)


def draw_pictures(root: Path, chance: Random, *, count: int) -> None:
    """Pictures of one colour each, of two classes to train and to test on."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                colour = tuple(chance.randrange(256) for _ in range(3))
                Image.new("RGB", (8, 8), colour).save(root / part / name / f"{number}.png")


def a_report(chance: Random, folder: Path) -> Write:
    """`bnn report`, over an older page."""
    shutil.copytree(trained(), "run")
    page = Path("run/report.html")
    page.write_text("<html>older</html>\n")

    def check() -> None:
        text = page.read_text()
        require(text.rstrip().endswith("</html>"), "a page is cut off")

    return Write(lambda: run_quietly(["report", "run"]), check)


def an_image_cache(chance: Random, folder: Path) -> Write:
    """The decoded pixels of a folder of pictures."""
    pictures, cache_dir = folder / "pictures", folder / "cache"
    draw_pictures(pictures, chance, count=4)
    load = partial(image_folder, pictures, size=8, cache_dir=cache_dir)
    expected = image_folder(pictures, size=8, cache_dir=folder / "elsewhere")

    def check() -> None:
        found = load()
        require((found.mean, found.std) == (expected.mean, expected.std), "the statistics of the cache are wrong")
        for one, other in ((found.train, expected.train), (found.test, expected.test)):
            require(torch.equal(one.images[:], other.images[:]), "the pixels of the cache are wrong")
        require(len(_files(cache_dir)) <= 4, f"litter is left: {_files(cache_dir)}")

    return Write(load, check)


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


WRITES: dict[Callable[[Random, Path], Write], int] = {
    a_checkpoint: 40,
    a_training: 22,
    a_model_file: 13,
    an_image_cache: 8,
    a_folder_of_shards: 6,
    a_compression: 5,
    a_quantization: 2,
    a_command: 3,
    a_report: 1,
}
"""All of them, and how many trials of a hundred are of each."""


def drawn(chance: Random, folder: Path) -> Write:
    """One of `WRITES`, made ready."""
    (make,) = chance.choices(list(WRITES), list(WRITES.values()))
    return make(chance, folder)
