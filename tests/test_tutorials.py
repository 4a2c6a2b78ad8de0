"""The tutorials run as they are printed."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnn.cli import main

TUTORIALS = sorted((Path(__file__).parent.parent / "docs" / "tutorials").glob("*.md"))


def program_of(page: Path) -> str:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks, "a tutorial has code"
    return "\n".join(blocks)


def commands_of(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def small_mnist(tmp_path):
    """MNIST's files with a few images whose brightest row tells their class."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, number in (("train", 600), ("t10k", 100)):
        labels = (np.arange(number) % 10).astype(np.uint8)
        images = random.integers(0, 60, (number, 28, 28)).astype(np.uint8)
        images[np.arange(number), 2 * labels + 4] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (raw / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return tmp_path


def test_all_pages_are_known():
    names = [
        "mnist-to-junctions",
        "own-loop",
        "own-measurements",
        "own-method",
        "own-pictures",
        "own-residual-network",
        "quick-start",
        "your-network",
    ]
    assert [page.stem for page in TUTORIALS] == names


LONG = ("mnist-to-junctions", "own-residual-network")
OF_COMMANDS = ("own-measurements", "own-pictures")


@pytest.mark.slow
def test_the_commands_and_the_program_of_own_pictures_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNN_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        Path("pets", name).mkdir(parents=True)
        for number in range(10):
            height, width = random.integers(30, 60, 2)
            pixels = (random.integers(0, 60, (height, width, 3)) + 150 * label).astype(np.uint8)
            Image.fromarray(pixels).save(
                Path("pets", name, ["tom.jpg", "IMG_0412.JPG"][number] if number < 2 else f"{number}.png")
            )
    page = next(page for page in TUTORIALS if page.stem == "own-pictures")
    commands = commands_of(page)
    assert len(commands) == 8
    for words in commands:
        assert words[0] == "bnn"
        assert main(words[1:]) == 0
    assert "cat" in capsys.readouterr().out
    exec(compile(program_of(page), str(page), "exec"), {"__name__": "tutorial"})
    assert capsys.readouterr().out.startswith("cat 0.")


@pytest.mark.slow
def test_the_commands_and_the_program_of_fine_tuning_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNN_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for label, name in enumerate(("pets/cat", "pets/dog", "more/newt")):
        Path(name).mkdir(parents=True)
        for number in range(10):
            pixels = (random.integers(0, 60, (32, 32, 3)) + 90 * label).astype(np.uint8)
            Image.fromarray(pixels).save(Path(name, f"{number}.png"))
    page = TUTORIALS[0].parent.parent / "fine-tuning.md"
    commands = commands_of(page)
    assert len(commands) == 8
    for words in commands:
        assert words[0] == "bnn"
        assert main(words[1:]) == 0, words
    printed = " ".join(capsys.readouterr().out.split())
    assert "16 samples of 2 classes, 4,096 bits each" in printed
    assert "7 but for newt" in printed
    exec(compile(program_of(page), str(page), "exec"), {"__name__": "tutorial"})
    assert float(capsys.readouterr().out) > 0


def test_the_commands_and_the_programs_of_own_measurements_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = ["pressure,vibration,current,state"]
    for number in range(60):
        label = number % 2
        pressure, vibration = 1e5 + 500 * label + random.normal(0, 30), label + random.normal(0, 0.3)
        rows.append(f"{pressure:.1f},{vibration:.3f},{1e-3 * (label + 1):.4f},{('idle', 'motor on')[label]}")
    Path("plant.csv").write_text("\n".join(rows))
    Path("today.csv").write_text("current,pressure,vibration\n0.0010,100010,0.1\n0.0020,100510,1.1\n")
    page = next(page for page in TUTORIALS if page.stem == "own-measurements")
    commands = commands_of(page)
    assert len(commands) == 7
    for words in commands:
        assert words[0] == "bnn"
        assert main(words[1:]) == 0
    printed = capsys.readouterr().out
    assert "today.csv row 2: motor on" in printed
    assert '"class": "idle"' in printed
    exec(compile(program_of(page), str(page), "exec"), {"__name__": "tutorial"})
    printed = capsys.readouterr().out
    assert printed.startswith("('pressure', 'vibration', 'current') ('idle', 'motor on')\nidle ")
    assert "tones.npz row 120: " in printed


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in LONG else [])
        for page in TUTORIALS
        if page.stem not in OF_COMMANDS
    ],
)
def test_tutorial_runs(page, small_mnist, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", str(small_mnist))
    exec(compile(program_of(page), str(page), "exec"), {"__name__": "tutorial"})
    printed = capsys.readouterr().out
    assert printed
    for output in re.findall(r"```text\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        assert output in printed
