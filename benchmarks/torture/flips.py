"""Damage to every file of a run: it is refused in one line, or changes nothing."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random

from PIL import Image

from benchmarks.torture.commands import Answer, answer, last_line
from benchmarks.torture.runs import results
from benchmarks.torture.trials import Kind, require, require_one_line
from benchmarks.torture.writes import draw_pictures, interrupted, trained
from bnn.data import Dataset
from bnn.data.folder import image_folder
from bnn.data.shards import sharded, write_shards
from bnn.errors import DataError
from bnn.training import directory

# People read these and programs may change them: a digit that flips there is another figure.
PLAIN = ("config.json", "metrics.jsonl", "summary.json", "ledger.json", "recipe.py")


def _flip(path: Path, chance: Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 2, 8])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, chance: Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _lengthen(path: Path, chance: Random) -> None:
    with path.open("ab") as file:
        file.write(chance.choice([b"\0", b"\n", b"{}\n", chance.randbytes(100)]))


def _zeros(path: Path, chance: Random) -> None:
    size = path.stat().st_size
    start = chance.randrange(size)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(min(512, size - start)))


def _huge(path: Path, chance: Random) -> None:
    os.truncate(path, 3 << 30)  # sparse: it takes no room


def _replaced(make: Callable[[Path], object]) -> Callable[[Path, Random], None]:
    def damage(path: Path, chance: Random) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path, Random], None]] = {
    "flipped": _flip,
    "cut": _cut,
    "longer": _lengthen,
    "zeroed": _zeros,
    "of 3 GiB": _huge,
    "missing": _replaced(lambda path: None),
    "a folder": _replaced(Path.mkdir),
    "a pipe": _replaced(os.mkfifo),
    "a loop of links": _replaced(lambda path: path.symlink_to(path.name)),
    "/dev/zero": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "another's": _replaced(lambda path: shutil.copy(trained() / directory.SUMMARY, path)),
}
_OFTEN = ("flipped", "flipped", "cut", "zeroed")
COMMANDS: dict[str, Callable[[], Answer]] = {
    "eval": lambda: answer(["eval", "run"]),
    "compress": lambda: answer(["compress", "run", "-o", "model.bnnz"]),
    "resume": lambda: answer(["train", "--resume", "run"]),
    "report": lambda: answer(["report", "run"]),
}


def of_a_run(chance: Random, folder: Path) -> None:
    """Damages a file of a run, and has a command use it."""
    shutil.copytree(interrupted(), "run")
    (command,) = chance.choices(list(COMMANDS), [4, 3, 4, 1])
    files = [path for path in Path("run").rglob("*") if path.is_file() and path.stat().st_size]
    path, damage = chance.choice(files), chance.choice([*DAMAGES, *_OFTEN])
    DAMAGES[damage](path, chance)
    others = {other: other.read_bytes() for other in files if other != path}
    what = f"{command} with {path.name} {damage}"
    found = COMMANDS[command]()
    if found.status:
        lost = [other.name for other, content in others.items() if not other.exists() or other.read_bytes() != content]
        require(not lost or command == "resume", f"{what} is refused ({last_line(found)}), and {lost} changes")
        return
    if path.name in PLAIN:
        return
    expected = _intact(command)
    if command == "eval":
        require(found.out == expected, f"{what} gives another accuracy, and says nothing")
    elif command == "compress":
        require(Path("model.bnnz").read_bytes() == expected, f"{what} gives another file, and says nothing")
    elif command == "resume":
        require(results(Path("run")) == expected, f"{what} trains to something else, and says nothing")


@cache
def _intact(command: str) -> object:
    """What a command comes to in a run without damage."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            shutil.copytree(interrupted(), "run")
            found = COMMANDS[command]()
            assert found.status == 0, found.errors
            match command:
                case "compress":
                    return Path("model.bnnz").read_bytes()
                case "resume":
                    return results(Path("run"))
            return found.out
        finally:
            os.chdir(here)


def of_a_cache(chance: Random, folder: Path) -> None:
    """Damages a file of the image cache: the pixels are those of the pictures all the same, or it is refused."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            Path(part, name).mkdir(parents=True)
            for number in range(3):
                colour = tuple(chance.randrange(256) for _ in range(3))
                Image.new("RGB", (6, 6), colour).save(Path(part, name, f"{number}.png"))
    load = partial(image_folder, Path(), size=6, cache_dir="cache")
    expected = _facts(load())
    path, damage = chance.choice(sorted(Path("cache").iterdir())), chance.choice([*DAMAGES, *_OFTEN])
    DAMAGES[damage](path, chance)
    try:
        found = _facts(load())
    except DataError as error:
        require_one_line(error)
        return
    require(found == expected, f"a {path.suffix} of the cache {damage} changes the images, and nothing is said")


def of_shards(chance: Random, folder: Path) -> None:
    """Damages a file of a folder of shards: the pixels are those that were written, or it is refused, or made anew."""
    draw_pictures(Path("pictures"), chance, count=3)
    write = partial(write_shards, "pictures", "shards", images_per_shard=2, shorter_side=8)
    write()
    load = partial(sharded, "shards", size=6)
    expected = _facts(load())
    path, damage = chance.choice(sorted(Path("shards").iterdir())), chance.choice([*DAMAGES, *_OFTEN])
    DAMAGES[damage](path, chance)
    for use in (load, lambda: (write(), load())[1]):
        try:
            found = _facts(use())
        except DataError as error:
            require_one_line(error)
        else:
            require(found == expected, f"{path.name} of the shards {damage} changes the pictures, and nothing is said")


def _facts(data: Dataset) -> tuple[object, ...]:
    images = [split.images[:].numpy().tobytes() for split in (data.train, data.test)]
    return data.mean, data.std, data.classes, *images


KINDS = (
    Kind(
        "flips",
        "a file of a run flipped, cut, longer, of 3 GiB, missing, or a pipe, a folder, a link, a device in its place;"
        " then `eval`, `compress`, `train --resume` or `report`",
        of_a_run,
        short=5,
        before=lambda: (trained(), interrupted()),
        long=1000,
    ),
    Kind(
        "caches",
        "the same of a file of the image cache, then its images",
        of_a_cache,
        short=4,
        before=trained,
        long=1000,
    ),
    Kind("shards", "the same of a file of shards, then their pictures", of_shards, short=4, before=trained, long=1000),
)
