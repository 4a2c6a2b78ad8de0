"""Digests of two short epochs of every recipe: what a change that is to change no result is held against.

    python -m benchmarks.digests -o before.json              # on the tree before a change
    python -m benchmarks.digests --against before.json       # on the tree after it

Each recipe trains on small made-up data. A digest is of everything that a checkpoint keeps: parameters, buffers and
optimizer state, whatever their names; losses and accuracies of the epochs stand beside it in full. Equal digests are
equal bits. They hold for one machine, one instruction set and one version of torch, which the file names.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import bnn.cli
from bnn.data import named
from bnn.data.arrays import Dataset, Split, channel_statistics
from bnn.training.directory import versions

_VARIANTS = (
    "sign",
    "standardized",
    "recu",
    "recu_pass",
    "recu_project",
    "recu_alpha",
    "recu_empirical",
    "recu_filter",
    "gradient_scaling",
    "silence_decay",
    "ovsw",
    "recu_ovsw",
)
_PRESETS = ("standard", "edge", "edge-min", "edge-signs")
_SCHEMES = ("read-first", "pre-distorted", "pedestal", "linear", "paper", "gated-pedestal", "amplitude")
_TRAIN_IMAGES, _TEST_IMAGES = 24, 8  # of each class
_COMPRESSIBLE = "compressible --width 8 --hidden 32 --batch-size 50 --seed 3"
_RECU = "recu --batch-size 50 --seed 3"


def experiments() -> Iterator[tuple[str, str]]:
    """Name and command line of each, without data and output directory; those that start from another come later."""
    yield "digits", "digits --seed 3"
    for preset in _PRESETS:
        yield f"mnist {preset}", f"mnist --preset {preset} --seed 3"
        for model in ("cnv", "binarynet"):
            yield f"binary {model} {preset}", f"binary --model {model} --preset {preset} --seed 3"
    for variant in _VARIANTS:
        yield f"recu resnet8 {variant}", f"{_RECU} --model resnet8 --variant {variant}"
    for model in ("resnet20", "resnet18", "vgg_small"):
        yield f"recu {model}", f"{_RECU} --model {model}"
    yield "recu resnet8 bfloat16", f"{_RECU} --model resnet8 --precision bfloat16"
    yield "compressible real", f"{_COMPRESSIBLE} --density null"
    yield "compressible ternary", f"{_COMPRESSIBLE} --real-epochs 1 --strength 1e-3"
    yield (
        "compressible hoyer",
        f"{_COMPRESSIBLE} --real-epochs 1 --strength 1e-4 --penalty hoyer_square --scope network",
    )
    yield "compressible from real", f"{_COMPRESSIBLE} --start {{compressible real}}"
    for data in ("mnist", "cifar10", "svhn"):
        yield f"gxnor {data}", f"gxnor --dataset {data} --seed 3" + (" --shift 0.07" if data == "mnist" else "")
        yield f"mtj {data}", f"mtj --dataset {data} --seed 3" + (" --shift 0.07" if data == "mnist" else "")
    yield "gxnor cifar10 bfloat16", "gxnor --dataset cifar10 --precision bfloat16 --seed 3"
    for scheme in _SCHEMES[1:]:
        yield f"mtj mnist {scheme}", f"mtj --dataset mnist --scheme {scheme} --seed 3"
    yield "mtj mnist spread", "mtj --dataset mnist --spread 0.05 --stuck 0.02 --temperature-K 310 --seed 3"


def digest(run: Path) -> dict[str, Any]:
    """What a finished run's newest checkpoint and metrics come to."""
    newest = max(run.glob("checkpoints/*.safetensors"))
    parts = {"model": [], "optimizer": []}  # type: dict[str, list[str]]
    for name, tensor in load_file(newest).items():
        kind = name.partition(".")[0]
        if kind in parts:
            content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            parts[kind].append(hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode() + content).hexdigest())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return {
        **{kind: hashlib.sha256(" ".join(sorted(hashes)).encode()).hexdigest() for kind, hashes in parts.items()},
        "metrics": [{name: record.get(name) for name in figures} for record in records],
    }


def main() -> int:
    """Runs the experiments; 1 where a digest is not the one of the file given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, help="the file to write")
    parser.add_argument("--against", type=Path, help="an earlier file to compare with")
    parser.add_argument("--only", default="", help="only experiments whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    earlier = json.loads(options.against.read_text())["digests"] if options.against else {}
    digests, different = {}, []
    with tempfile.TemporaryDirectory() as folder:
        data = _write_data(Path(folder))
        for name, command in experiments():
            if not name.startswith(options.only):
                continue
            run = _run(Path(folder), name)
            recipe, *arguments = command.split(" ")
            arguments = list(_with_runs(Path(folder), arguments))
            started = time.monotonic()
            arguments += [
                *_data_arguments(recipe, arguments, data),
                "--epochs",
                "2",
                "--out",
                str(run),
                "--device",
                "cpu",
            ]
            status = bnn.cli.main(["train", f"recipes/{recipe}.py", *arguments])
            if status:
                return status
            digests[name] = digest(run)
            if name in earlier and digests[name] != earlier[name]:
                different.append(name)
            print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)
    missing = [name for name in earlier if name.startswith(options.only) and name not in digests]
    if options.out:
        options.out.write_text(json.dumps({"versions": versions(), "digests": digests}, indent=1) + "\n")
    for name in different:
        print(f"{name} differs: {json.dumps(digests[name])} is not {json.dumps(earlier[name])}")
    print(f"{len(digests)} digests" + (f", {len(different)} differ, {len(missing)} missing" if earlier else ""))
    return 1 if different or missing else 0


def _run(folder: Path, name: str) -> Path:
    return folder / "runs" / name.replace(" ", "-")


def _with_runs(folder: Path, arguments: list[str]) -> Iterator[str]:
    """The arguments, with {a name} replaced by the directory of that run."""
    text = " ".join(arguments)
    while "{" in text:
        before, _, rest = text.partition("{")
        name, _, after = rest.partition("}")
        text = f"{before}{_run(folder, name)}{after}"
    return iter(text.split(" ")) if text else iter(())


def _data_arguments(recipe: str, arguments: list[str], data: Path) -> list[str]:
    if recipe == "digits":
        return []
    of_digits = recipe == "mnist" or "mnist" in arguments
    return ["--data-dir", str(data if of_digits else data / "cifar10")]


def _write_data(folder: Path) -> Path:
    """Smooth random images of ten classes: MNIST's files, and a folder of coloured PNGs. SVHN is made in memory."""
    random = np.random.default_rng(0)
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, each in (("train", 60), ("t10k", 20)):
        images, labels = _images(random, each, 1, 28)
        for kind, array in (("images-idx3", images[:, 0]), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (raw / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    for part, each in (("train", _TRAIN_IMAGES), ("test", _TEST_IMAGES)):
        images, labels = _images(random, each, 3, 32)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / "data" / "cifar10" / part / str(label) / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(path)
    splits = [
        Split(torch.from_numpy(images), torch.from_numpy(labels).long())
        for images, labels in (_images(random, each, 3, 32) for each in (_TRAIN_IMAGES, _TEST_IMAGES))
    ]
    mean, std = channel_statistics(splits[0].images)
    svhn = Dataset("svhn", *splits, tuple("0123456789"), mean, std, "made up")
    # torchvision would refuse files that are not SVHN's own.
    named._LOADERS["svhn"] = lambda data_dir, *, download=False: svhn
    return folder / "data"


def _images(random: np.random.Generator, each: int, channels: int, size: int) -> tuple[Any, Any]:
    """uint8 [10 each, channels, size, size]: a pattern of each class under noise; and its labels, uint8."""
    labels = np.arange(10 * each, dtype=np.uint8) % 10
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.stack([np.sin(2 * np.pi * ((k % 3 + 1) * x + (k // 3) * y + 0.1 * k)) for k in range(10)])
    tints = np.linspace(0.4, 1.0, channels)[:, None, None]
    noise = random.normal(0, 40, (len(labels), channels, size, size))
    return np.clip(128 + 60 * waves[labels][:, None] * tints + noise, 0, 255).astype(np.uint8), labels


if __name__ == "__main__":
    raise SystemExit(main())
