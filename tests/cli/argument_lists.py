"""Random argument lists of `bnn` and `hwsim`, valid and broken: `argument_lists(500, seed=0)`.

Each begins as a command that works in the folder that `furnish` makes, with options of its own, and is then changed in
a few places. None asks for a training of more than moments, and none writes outside of the folder.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bnn.cli import main

TINY = ("--epochs=1", "--width=8", "--hidden-layers=1", "--batch-size=400")


class ArgumentList(NamedTuple):
    """A command line."""

    program: str
    """bnn or hwsim."""
    words: tuple[str, ...]
    """Behind the program's name."""


class _Command(NamedTuple):
    program: str
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    """That it takes, with values that work."""


_OF_ARRAYS = ("--data-dir=t.csv", "--out=new")
_COMMANDS = [
    _Command(
        "bnn",
        ("train", "digits", *TINY, "--out=new"),
        ("--preset=edge", "--preset=edge-min", "--seed=3", "--learning-rate=0.01", "--device=auto", "--profile-memory"),
    ),
    _Command(
        "bnn",
        ("train", "arrays", *TINY, *_OF_ARRAYS),
        ("--target=kind", "--test=t.csv", "--test-part=0.5", "--validation=0", "--preset=edge", "--seed=1"),
    ),
    _Command(
        "bnn",
        ("train", "images", "--data-dir=pets", "--model=mlp", "--image-size=4", "--epochs=1", "--out=new"),
        ("--grey", "--no-flip", "--no-crop", "--skip-damaged", "--test-part=0.5", "--precision=float32"),
    ),
    _Command("bnn", ("train", "--resume", "run"), ("--epochs=2", "--device=cpu", "--recipe=mine.py")),
    _Command("bnn", ("train", "mine.py", "--out=new"), ("--device=cpu", "--profile-memory")),
    _Command("bnn", ("train", "mnist", "--data-dir=empty", "--out=new"), ("--epochs=1", "--preset=edge")),
    _Command("bnn", ("train", "recu", "--data-dir=pets", "--out=new"), ("--model=resnet8", "--variant=recu")),
    _Command("bnn", ("sweep", "digits", *TINY, "--seed=0,1", "--out=swept"), ("--device=cpu", "--preset=edge")),
    _Command("bnn", ("recipes",)),
    _Command("bnn", ("recipes", "copy", "digits"), ("-o=copy.py",)),
    _Command("bnn", ("eval", "run"), ("--confusion", "--json", "--data-dir=t.csv", "--device=cpu")),
    _Command("bnn", ("eval", "m.bnnz", "--data-dir=t.csv"), ("--confusion", "--json")),
    _Command("bnn", ("predict", "run", "t.csv"), ("--top=2", "--json")),
    _Command("bnn", ("predict", "p.bnnz", "p.png", "pets/a/0.png"), ("--top=2", "--json")),
    _Command(
        "bnn",
        ("budget", "mlp", "--no-measure"),
        ("--input=3,8,8", "--batch=20", "--preset=edge-min", "--optimizer=sgd", "--mode=paper", "--json", "--slice=5"),
    ),
    _Command("bnn", ("budget", "mlp", "--fit=2MiB", "--mode=paper"), ("--optimizer=bop", "--preset=edge", "--json")),
    _Command("bnn", ("report", "run"), ("-o=page.html", "--strict")),
    _Command("bnn", ("models",)),
    _Command("bnn", ("compress", "run", "-o", "new.bnnz"), ("--floats=float16", "--floats=bfloat16")),
    _Command("bnn", ("decompress", "m.bnnz", "-o", "new"), ("--memory-mib=1",)),
    _Command("bnn", ("inspect", "m.bnnz"), ("--json", "--memory-mib=1")),
    _Command(
        "hwsim",
        ("switching", "--delta=60", "--overdrive=3", "--tau=1.2"),
        ("--model=butler", "--json", "--alpha=0.01"),
    ),
    _Command(
        "hwsim",
        ("switching", "--voltage-V=0.4", "--pulse-width-s=2e-9", "--model=butler"),
        ("--junction=consistent", "--state=P", "--temperature-K=320", "--measured=device.csv", "--json"),
    ),
    _Command(
        "hwsim",
        ("sweep", "switching", "--over=overdrive", "--from=1", "--to=3", "--points=3", "--pulse-width-s=1e-9"),
        ("--out=new", "--models=butler,neel-brown", "--state=AP", "--format=svg", "--temperature-K=300"),
    ),
    _Command("hwsim", ("sweep", "schemes", "--points=3", "--out=new"), ("--m=2", "--overdrive=2", "--spread=0.1")),
    _Command(
        "hwsim",
        ("sweep", "accuracy", "digits", "--over=width", "--values=8", "--out=swept", "--", "--epochs=1"),
        ("--seeds=0,1",),
    ),
]
_BAD = ["", " ", "-1", "0", "nan", "-inf", "1e999", "abc", "1.5", "0x10", "9" * 30, "ü\n", "null", "[1", "{a", "a,b",
        ",", "gone", "gone/deeper", "empty", "text.txt", "half", "run", "m.bnnz", "p.png", "t.csv", "mine.py",
        "broken.py", "text.txt/below", "--", "-x", "-h", "--gone", "--gone=1", "--epoch=2", "True", "%s"]  # fmt: skip
# A number that is too large is refused, or takes for ever where it only counts.
_COUNTED = (
    "--epochs",
    "--points",
    "--trajectories",
    "--seed",
    "--width",
    "--hidden-layers",
    "--image-size",
    "--values",
)


def argument_lists(number: int, *, seed: int) -> Iterator[ArgumentList]:
    """Random argument lists, the same for the same seed."""
    choice = random.Random(seed)
    for _ in range(number):
        command = choice.choice(_COMMANDS)
        words = [*command.words, *choice.sample(command.options, choice.randint(0, min(2, len(command.options))))]
        for _ in range(choice.choice((0, 1, 1, 1, 2, 3))):
            _change(words, choice)
        yield ArgumentList(command.program, tuple(_bounded(words)))


def _change(words: list[str], choice: random.Random) -> None:
    """Changes one word, or leaves it out, doubles it, or adds one."""
    place, bad = choice.randrange(len(words) + 1), choice.choice(_BAD)
    name, equals, _ = words[place].partition("=") if place < len(words) else ("", "", "")
    match choice.randrange(6):
        case 0 | 1 if equals:
            words[place] = name + equals + bad
        case 0 | 1 if place < len(words):
            words[place] = bad
        case 2 if equals:
            words[place] = name
        case 2 | 3 if place < len(words) and not name.startswith(("--epochs", "--no-measure")):
            del words[place]
        case 4:
            words[place:place] = words[place : place + 1]
        case _:
            words.insert(place, choice.choice([bad, *choice.choice(_COMMANDS).options]))


def _bounded(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        name, _, value = word.partition("=")
        yield f"{name}=-1" if name in _COUNTED and len(value) > 9 else word


def furnish(place: Path) -> None:
    """Puts what the commands name into the current folder, which is `place`: runs, model files, data, and others."""
    rows = [f"{n % 2},{n % 5},{'xy'[n % 2]}" for n in range(40)]
    (place / "t.csv").write_text("\n".join(["a,b,kind", *rows]))
    for label in "ab":
        (place / "pets" / label).mkdir(parents=True)
        for number in range(4):
            level = np.full((5, 6), 40 * number + 60 * (label == "b"), np.uint8)
            Image.fromarray(level).save(place / "pets" / label / f"{number}.png")
    Image.new("L", (4, 4)).save(place / "p.png")
    (place / "text.txt").write_text("some text\n")
    (place / "empty").mkdir()
    (place / "half").mkdir()
    (place / "half" / "config.json").write_text("{")
    (place / "device.csv").write_text("voltage_V,pulse_width_s,probability\n0.4,1e-9,0.1\n0.4,4e-9,0.9\n")
    (place / "broken.py").write_text("def recipe() -> int:\n    raise RuntimeError('on purpose')\n")
    assert main(["recipes", "copy", "digits", "-o", "mine.py"]) == 0
    own = (place / "mine.py").read_text().replace("epochs: int = 100", "epochs: int = 1")
    (place / "mine.py").write_text(own.replace("width: int = 512", "width: int = 8"))
    assert main(["train", "arrays", *TINY, "--data-dir=t.csv", "--out=run"]) == 0
    pictures = ("--data-dir=pets", "--model=mlp", "--image-size=4", "--epochs=1")
    assert main(["train", "images", *pictures, "--out=of-pictures"]) == 0
    assert main(["compress", "run", "-o", "m.bnnz"]) == 0
    assert main(["compress", "of-pictures", "-o", "p.bnnz"]) == 0
