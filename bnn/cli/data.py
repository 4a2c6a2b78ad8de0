"""`bnn data`: shards of large sets of pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from bnn.cli.arguments import ArgumentParser


def data(arguments: list[str]) -> None:
    """Makes shards of a folder of pictures, or says what is in them."""
    parser = ArgumentParser(prog="bnn data", description="Shards: large sets of pictures in a few files.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=ArgumentParser)
    sharding = commands.add_parser("shard", help="make shards of a folder with train/CLASS and test/CLASS or val/CLASS")
    sharding.add_argument("folder", metavar="FOLDER", type=Path, help="of the pictures")
    sharding.add_argument("-o", "--out", metavar="SHARDS", type=Path, required=True, help="folder of the shards")
    sharding.add_argument(
        "--shorter-side", metavar="PIXELS", type=int, default=256, help="of larger pictures (default: %(default)s)"
    )
    sharding.add_argument("--skip-damaged", action="store_true", help="leave out pictures that cannot be decoded")
    inspecting = commands.add_parser("inspect", help="what is in a folder of shards")
    inspecting.add_argument("shards", metavar="SHARDS", type=Path, help="made by `bnn data shard`")
    inspecting.add_argument("--verify", action="store_true", help="decode every picture and compare its checksum")
    options = parser.parse_args(arguments)
    if options.command == "shard":
        _shard(options.folder, options.out, options.shorter_side, skip_damaged=options.skip_damaged)
    else:
        _inspect(options.shards, verify=options.verify)


def _shard(folder: Path, out: Path, shorter_side: int, *, skip_damaged: bool) -> None:
    from bnn.data.shards import write_shards

    def progress(done: int, total: int) -> None:
        print(f"{done:,} of {total:,} pictures", file=sys.stderr)

    shards = write_shards(folder, out, shorter_side=shorter_side, skip_damaged=skip_damaged, progress=progress)
    print(f"shards: {shards.folder}")


def _inspect(folder: Path, *, verify: bool) -> None:
    from bnn.data.shards import ShardImages, read_shards

    shards = read_shards(folder)
    left_out = f", {shards.damaged:,} pictures left out" if shards.damaged else ""
    print(f"{folder}: {len(shards.classes):,} classes, shorter side up to {shards.shorter_side} pixels{left_out}")
    print(f"mean {_numbers(shards.mean)}, deviation {_numbers(shards.std)}, of pixels in 0..1")
    for part in shards.counts:
        images = ShardImages(shards, part, size=8)
        of_classes = images.labels.bincount(minlength=len(shards.classes))
        size_MB = sum(path.stat().st_size for path in shards.index(part)[0]) / 1e6
        print(
            f"{part}: {len(images):,} pictures in {shards.counts[part]:,} shards of {size_MB:,.1f} MB, "
            f"{int(of_classes.min()):,} to {int(of_classes.max()):,} of a class"
        )
        if verify:
            for start in range(0, len(images), 256):
                images[start : start + 256]
            print(f"{part}: every picture is as it was written")


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
