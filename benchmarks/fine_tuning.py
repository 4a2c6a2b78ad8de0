"""New classes on the device: a network of seven classes learns three more, by replay in bits, beside joint training.

    python -m benchmarks.fine_tuning train --data-dir CIFAR --out OUT --seeds 0,1,2
    python -m benchmarks.fine_tuning measure --data-dir CIFAR --out OUT
    python -m benchmarks.fine_tuning table --out OUT

CIFAR is a folder with train/CLASS and test/CLASS. `train` runs `bnn train images` and `bnn replay` for each seed: the
first seven classes by name, all ten together, then the last three from the network of the seven and its samples. What
is complete is left as it is, and what was broken off goes on. `measure` takes the peak of resident memory of some steps
above the level before the network is made, each in a process of its own: run it alone on the machine. `table` prints
all, in Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from bnn.codec import load
from bnn.cost.memory.resident import PeakResident
from bnn.data.folder import labelled_images
from bnn.models import resnet8
from bnn.models.freezing import freeze
from bnn.presets import prepare
from bnn.training.directory import CONFIGURATION, SUMMARY
from bnn.training.evaluation import relabelled
from bnn.training.recipe import load_recipe, locate_recipe
from bnn.training.replay import load as load_replay
from bnn.training.start import weights_of

KNOWN = 7
"""Of the classes, in the order of their names."""
_OPTIONS = {
    "model": "resnet8",
    "image_size": 32,
    "preset": "edge-min",
    "batch_size": 50,
    "validation": 0.0,
    "crop": False,
}
_PICTURES = {"train": 1000, "test": 500}
"""Of each class."""
_STEPS = 5


def parts(data_dir: Path, out: Path) -> dict[str, Path]:
    """Folders of the first classes, of the last and of all, of links to the first pictures of each class."""
    names = sorted(path.name for path in (data_dir / "train").iterdir() if path.is_dir())
    folders = {"seven": names[:KNOWN], "three": names[KNOWN:], "ten": names}
    for folder, own in folders.items():
        for name in own:
            for part, pictures in _PICTURES.items():
                place = out / "data" / folder / part / name
                place.mkdir(parents=True, exist_ok=True)
                for picture in sorted((data_dir / part / name).iterdir())[:pictures]:
                    if not (place / picture.name).exists():
                        (place / picture.name).symlink_to(picture.absolute())
    return {folder: out / "data" / folder for folder in folders}


def bnn(*words: object) -> None:
    """Runs a command of bnn; ends this program where it fails."""
    done = subprocess.run([sys.executable, "-m", "bnn", *map(str, words)], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(
            f"bnn {' '.join(map(str, words))} ended with {done.returncode}: the same command tries it again"
        )


def train_once(run: Path, data: Path, *, epochs: int, seed: int, more: Sequence[object] = ()) -> None:
    """Trains a run unless it is complete."""
    if (run / SUMMARY).exists():
        return
    if (run / CONFIGURATION).exists():
        bnn("train", "--resume", run, "--allow-changes")
        return
    words = [f"--{name.replace('_', '-')}={value}" for name, value in _OPTIONS.items() if not isinstance(value, bool)]
    words += ["--no-crop", f"--epochs={epochs}", f"--seed={seed}", f"--data-dir={data}", f"--out={run}"]
    bnn("train", "images", *words, *more)


def train(options: argparse.Namespace) -> None:
    """Everything of each seed."""
    folders = parts(options.data_dir, options.out)
    for seed in map(int, options.seeds.split(",")):
        first, tuned = options.out / f"seven-{seed}", options.out / f"tuned-{options.freeze}-{seed}"
        samples = options.out / f"replay-{options.freeze}-{seed}.safetensors"
        train_once(first, folders["seven"], epochs=options.epochs, seed=seed)
        train_once(options.out / f"ten-{seed}", folders["ten"], epochs=options.epochs, seed=seed)
        if not samples.exists():
            bnn("replay", first, "--freeze", options.freeze, "--fit", options.fit, "--seed", seed, "-o", samples)
        more = ["--start", first, "--replay", samples]
        train_once(tuned, folders["three"], epochs=options.tuning_epochs, seed=seed, more=more)


def hits(model_file: Path, data_dir: Path) -> dict[str, list[float]]:
    """Of the test pictures of the first classes and of the others: accuracy, and that among the former alone."""
    model = load(model_file)
    split, names = labelled_images(data_dir, image_shape=(3, 32, 32))
    known = [k for k, name in enumerate(names) if name in model.classes]
    rows = torch.isin(split.labels, torch.tensor(known)).nonzero().flatten()
    images, labels = split[rows]
    labels = relabelled(split, [n if n in model.classes else model.classes[0] for n in names], model.classes).labels[
        rows
    ]
    assert model.preprocessing is not None
    with torch.no_grad():
        logits = torch.cat([model(model.preprocessing.normalized(part)) for part in torch.split(images, 500)])
    old = labels < KNOWN
    among = logits[old][:, :KNOWN].argmax(1) == labels[old]
    right = logits.argmax(1) == labels
    found = {"old": [right[old].float().mean().item()], "old among old": [among.float().mean().item()]}
    return found | ({"new": [right[~old].float().mean().item()]} if bool((~old).any()) else {})


def measure(options: argparse.Namespace) -> None:
    """Prints the peak of each kind of step, each in a process of its own."""
    rows = {name: _peak(options, name) for name in ("ten, standard", "ten, edge-min", "tuned")}
    print(json.dumps(rows))


def _peak(options: argparse.Namespace, name: str) -> Any:
    words = ["measure", f"--data-dir={options.data_dir}", f"--out={options.out}", f"--freeze={options.freeze}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fine_tuning", *words, f"--only={name}"], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _load_libraries(start: Path, samples: Path) -> None:
    """Loads the code that listing calls, reading a start and steps take, by those of a narrow network."""
    shape = (3, 32, 32)
    weights_of(start), load_replay(samples, generator=torch.Generator())
    for preset in ("standard", "edge-min"):
        step = prepare(
            preset,
            lambda: freeze(resnet8(input_shape=shape, width=4), "1", input_shape=shape, hands_on_bits=True),
            input_shape=shape,
            keep_weights=True,
        )
        step.take(torch.randn(4, *shape), torch.arange(4))


def measure_one(options: argparse.Namespace, name: str) -> dict[str, float]:
    """MiB that the process grows by for a network, its optimizer, its samples and some steps, above the level before.

    The libraries' code is loaded before, by a step of another network, and the pictures are read.
    """
    folders, images = parts(options.data_dir, options.out), load_recipe(locate_recipe("images"))
    more: dict[str, Any] = {"preset": "standard" if name.endswith("standard") else "edge-min"}
    if name == "tuned":
        more["start"] = options.out / "seven-0"
        more["replay"] = options.out / f"replay-{options.freeze}-0.safetensors"
    folder = folders["three" if name == "tuned" else "ten"]
    data = images.load_data(data_dir=folder, image_size=32)  # type: ignore[misc]
    own = {name: value for name, value in _OPTIONS.items() if name != "image_size"} | more | {"epochs": 1}
    _load_libraries(options.out / "seven-0", options.out / f"replay-{options.freeze}-0.safetensors")
    resident = PeakResident()
    run = images.function(data, **own)
    images_, labels = run.data.train[torch.arange(run.batch_size)]
    x = run.data.preprocessing.normalized(images_)
    run.model.train()
    for _ in range(_STEPS):
        run.take(x, labels)
    return {"peak_mib": resident.above_start_bytes() / 2**20}


def table(options: argparse.Namespace) -> str:
    """Accuracies of the complete runs, mean and sample deviation, in percent."""
    rows: dict[str, dict[str, list[float]]] = {}
    for kind in ("seven", "ten", f"tuned-{options.freeze}"):
        for run in sorted(options.out.glob(f"{kind}-[0-9]")):
            if (run / SUMMARY).exists():
                for name, values in hits(run / "model.bnnz", parts(options.data_dir, options.out)["ten"]).items():
                    rows.setdefault(kind, {}).setdefault(name, []).extend(values)
    lines = ["| network | seeds | old classes | among old ones alone | new classes |", "|---|---|---|---|---|"]
    for kind, found in rows.items():
        cells = [spread(found.get(name, [])) for name in ("old", "old among old", "new")]
        lines.append(f"| {kind} | {len(found['old'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and sample deviation in percent, and each value."""
    if not values:
        return ""
    each = ", ".join(f"{100 * value:.2f}" for value in values)
    return f"{100 * mean(values):.2f}" + (f" ± {100 * stdev(values):.2f} ({each})" if len(values) > 1 else "")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure", "table"))
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=6, help="of the seven classes, and of all ten")
    parser.add_argument("--tuning-epochs", type=int, default=4, help="over the pictures of the three")
    parser.add_argument("--freeze", default="1", help="the last layer that does not learn the three")
    parser.add_argument("--fit", default="1MiB", help="of the samples")
    parser.add_argument("--only", help="measure this here")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.what == "train":
        train(options)
    elif options.what == "measure" and options.only:
        print(json.dumps(measure_one(options, options.only)))
    elif options.what == "measure":
        measure(options)
    if options.what == "table":
        print(table(options))


if __name__ == "__main__":
    main()
