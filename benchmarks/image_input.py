"""Images a second from shards, beside torchvision's ImageFolder with worker processes, and the memory that it takes.

    python -m benchmarks.image_input --pictures 5000 --out runs/image-input

makes pictures of 400 to 500 pixels by enlarging CIFAR-10's and adding noise (`--data-dir`, an image folder), shards of
them, and then reads a whole epoch in turn, three times each: random parts of 224 pixels in batches of 128; of shards as
the pixels that a training takes, which it normalises a slice at a time, and as floats, which ImageFolder gives.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bnn.cost.memory.resident import rss_bytes
from bnn.data import Batches
from bnn.data.shards import sharded, write_shards
from bnn.data.torchvision_import import import_torchvision

_BATCH, _SIZE = 128, 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_pictures(source: Path, folder: Path, pictures: int) -> None:
    """Writes pictures of ten classes, and a fiftieth as many to test on, unless they are there."""
    draw = np.random.default_rng(0)
    files = sorted((source / "train").glob("*/*.*"))
    for part, count in (("train", pictures), ("val", max(10, pictures // 50))):
        for number in range(count):
            path = folder / part / f"class{number % 10}" / f"{number:06d}.jpg"
            width, height = (int(side) for side in draw.integers(400, 501, 2))
            noise = draw.normal(0, 6, (height, width, 1))
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            small = Image.open(files[number * 7919 % len(files)]).convert("RGB")
            pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) + noise
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def of_shards(folder: Path, epoch: int, *, normalize: bool) -> Iterator[torch.Tensor]:
    """An epoch from shards, as floats or as pixels."""
    data = sharded(folder, size=_SIZE)
    batches = Batches(data.train, batch_size=_BATCH, mean=data.mean, std=data.std, shuffle=True)
    return (images for images, _ in batches.epoch(epoch, normalize=normalize))


def of_image_folder(folder: Path, workers: int) -> Iterator[torch.Tensor]:
    """An epoch of torchvision's."""
    from torch.utils.data import DataLoader

    datasets, transforms = (import_torchvision(part, needed_by="the comparison") for part in ("datasets", "transforms"))
    transform = transforms.Compose(
        [transforms.RandomResizedCrop(_SIZE), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    )
    data = datasets.ImageFolder(str(folder / "train"), transform)
    loader = DataLoader(data, _BATCH, shuffle=True, num_workers=workers, drop_last=True)
    return (images for images, _ in loader)


def measured(batches: Iterator[torch.Tensor]) -> tuple[float, float, float, float]:
    """Images a second of wall time, and of this process's time on all cores together; resident memory of this process
    after the first and the last batch, in MiB."""
    images, first_MiB, memory_MiB = 0, 0.0, 0.0
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for batch in batches:
        images += len(batch)
        memory_MiB = rss_bytes() / 2**20
        first_MiB = first_MiB or memory_MiB
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return images / wall_s, images / cpu_s, first_MiB, memory_MiB


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="an image folder to enlarge pictures of")
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/image-input"))
    options = parser.parse_args()
    folder, shards = options.out / "pictures", options.out / "shards"
    make_pictures(options.data_dir, folder, options.pictures)
    began_s = time.perf_counter()
    write_shards(folder, shards)
    print(f"shards: {time.perf_counter() - began_s:.0f} s")
    rates: dict[str, list[float]] = {}

    def measure(name: str, batches: Iterator[torch.Tensor]) -> None:
        rate, a_core, first_MiB, last_MiB = measured(batches)
        rates.setdefault(name, []).append(rate)
        print(f"{name}: {rate:.0f} images/s, {a_core:.0f} a second of this process's time on a core,", end=" ")
        print(f"{first_MiB:.0f} MiB after the first batch, {last_MiB:.0f} after the last", flush=True)

    for number in range(options.rounds):
        measure("shards, pixels", of_shards(shards, number, normalize=False))
        measure("shards, floats", of_shards(shards, number, normalize=True))
        measure(f"ImageFolder, {options.workers} workers", of_image_folder(folder, options.workers))
    *ours, theirs = (statistics.median(of_one) for of_one in rates.values())
    ratios = ", ".join(f"{rate / theirs:.2f}" for rate in ours)
    print(f"medians {', '.join(f'{rate:.0f}' for rate in (*ours, theirs))}; shards over ImageFolder: {ratios} times")


if __name__ == "__main__":
    main()
