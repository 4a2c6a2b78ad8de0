"""A stranger's first minutes: from a wheel, in an empty folder, with pictures of odd formats, without the clone."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("scikit_build_core") is None, reason="pip install scikit-build-core to build a wheel"
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """What a wheel without kernels installs; it is built from a copy, which knows nothing of this clone."""
    place = tmp_path_factory.mktemp("wheel")
    names = ["bnn", "hwsim", "recipes", "pyproject.toml", "README.md", "LICENSE", "CMakeLists.txt"]
    (place / "source").mkdir()
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-C", "wheel.cmake=false"]
    subprocess.run([*pip, "-w", str(place), str(place / "source")], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def write_pictures(folder: Path) -> None:
    """Two hundred pictures of four classes, in every format, colour and orientation."""
    random = np.random.default_rng(0)
    kinds = [
        ("RGB", "jpg"),
        ("L", "png"),
        ("P", "gif"),
        ("RGBA", "png"),
        ("CMYK", "jpg"),
        ("RGB", "webp"),
        ("1", "bmp"),
    ]
    for number in range(200):
        label = number % 4
        height, width = random.integers(20, 140, 2)
        pixels = random.integers(0, 50, (height, width, 3))
        y, x = np.mgrid[0:height, 0:width]
        stripes = (x * 8 // width if label == 0 else y * 8 // height) % 2
        pixels += 180 * stripes[..., None] if label < 2 else 60 * label
        place = folder / ("stripes", "bars", "grey", "white")[label]
        place.mkdir(parents=True, exist_ok=True)
        mode, suffix = kinds[number // 4 % len(kinds)]
        exif = Image.Exif()
        exif[0x0112] = 3
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)
        image.save(place / f"{number}.{suffix}", **({"exif": exif} if suffix in ("jpg", "webp") else {}))


def test_from_a_wheel_to_predictions_elsewhere(site, tmp_path):
    home = tmp_path / "empty"
    home.mkdir()
    write_pictures(home / "pets")
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def bnn(*words: str, cwd: Path = home) -> str:
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "bnn", *words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    assert "images" in bnn("recipes")
    quick = ["--image-size", "32", "--model", "resnet8", "--epochs", "8", "--batch-size", "16"]
    bnn("train", "images", "--data-dir", "pets", *quick, "--out", "run")
    summary = json.loads((home / "run" / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.6
    pictures = [f"pets/{name}" for name in ("stripes/0.jpg", "bars/5.png", "grey/10.gif", "white/15.png")]
    guesses = bnn("predict", "run", *pictures, "--json")
    bnn("compress", "run", "-o", "pets.bnnz")
    assert bnn("predict", "pets.bnnz", *pictures, "--json") == guesses
    moved = tmp_path / "another user" / "place"
    shutil.move(home, moved)
    assert bnn("predict", "run", *pictures, "--json", cwd=moved) == guesses
    assert bnn("predict", "pets.bnnz", *pictures, "--json", cwd=moved) == guesses
    figures = json.loads(bnn("eval", "run", "--data-dir", "pets", "--json", cwd=moved))
    assert figures["accuracy"] == summary["test_accuracy"]
    bnn("report", "run", cwd=moved)
    bnn("train", "--resume", "run", "--epochs", "9", "--data-dir", "pets", cwd=moved)
