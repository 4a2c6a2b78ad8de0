"""A stranger's first minutes: from a wheel, in an empty folder, with pictures of odd formats, without the clone."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("scikit_build_core") is None, reason="pip install scikit-build-core to build a wheel"
    ),
]


@pytest.fixture(scope="module", params=["kernels", "reference"])
def python(request, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel alone, built with or without kernels.

    It is built from a copy, which knows nothing of this clone. What the package depends on comes from this environment.
    """
    with_kernels = request.param == "kernels"
    if with_kernels and not (shutil.which("c++") and importlib.util.find_spec("nanobind")):
        pytest.skip("kernels are built by a C++ compiler and nanobind")
    place = tmp_path_factory.mktemp("wheel")
    names = ["bnn", "hwsim", "recipes", "pyproject.toml", "README.md", "LICENSE", "CMakeLists.txt"]
    (place / "source").mkdir()
    for name in names:
        if (ROOT / name).is_dir():
            # Without the kernels that are built here.
            shutil.copytree(ROOT / name, place / "source" / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, place / "source" / name)
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--no-build-isolation", "--no-deps", "-C", f"wheel.cmake={str(with_kernels).lower()}"]
    subprocess.run([*build, "-w", str(place), str(place / "source")], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    found = place / "venv" / "bin" / "python"
    install = [*pip, "--python", str(found), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (place / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kernels = [str(found), "-W", "ignore", "-c", "from bnn.ops import cpu; print(cpu.instruction_set())"]
    told = subprocess.run(kernels, check=True, capture_output=True, text=True, cwd=place, env=alone)
    assert (told.stdout.strip() != "reference") == with_kernels
    return found


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


def test_from_a_wheel_to_predictions_elsewhere(python, tmp_path):
    home = tmp_path / "empty"
    home.mkdir()
    write_pictures(home / "pets")
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)

    def bnn(*words: str, cwd: Path = home) -> str:
        ran = subprocess.run(
            [str(python), "-W", "ignore", str(python.with_name("bnn")), *words],
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
