"""The tutorials run as they are printed."""

import re
from pathlib import Path

import numpy as np
import pytest

TUTORIALS = sorted((Path(__file__).parent.parent / "docs" / "tutorials").glob("*.md"))


def program_of(page: Path) -> str:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks, "a tutorial has code"
    return "\n".join(blocks)


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


def test_there_are_five():
    names = ["mnist-to-junctions", "own-loop", "own-method", "own-residual-network", "quick-start"]
    assert [page.stem for page in TUTORIALS] == names


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_runs(page, small_mnist, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", str(small_mnist))
    exec(compile(program_of(page), str(page), "exec"), {"__name__": "tutorial"})
    printed = capsys.readouterr().out
    assert printed
    for output in re.findall(r"```text\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        assert output in printed
