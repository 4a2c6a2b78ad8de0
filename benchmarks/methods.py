"""An ablation of the methods of docs/methods.md: plain training, and each method alone in the place of a part of it.

    python -m benchmarks.methods train --network mlp --data-dir DIR --out OUT --epochs 3 --seeds 0,1,2
    python -m benchmarks.methods measure --network mlp --data-dir DIR --out OUT
    python -m benchmarks.methods count --network mlp --data-dir DIR --out OUT
    python -m benchmarks.methods table --network mlp --out OUT

`train` runs the recipe `methods` once for each method and seed, one after the other, seed after seed; what is complete
is left as it is, and what was broken off goes on, so that the same command goes on with all. `measure` takes memory and
time of a step of each, in a process each: run it alone on the machine. `count` prices
one of each by the ledger. `table` prints all, in Markdown.
"""

import argparse
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import bnn.cli
from bnn.cost.energy import HOROWITZ_45NM, count_step
from bnn.cost.memory.measured import measure_step, measure_time, random_batch
from bnn.training import Run
from bnn.training.directory import CONFIGURATION, SUMMARY
from bnn.training.recipe import load_recipe, locate_recipe

METHODS: dict[str, list[str]] = {
    "plain": [],
    "edge-min": ["--preset=edge-min"],
    "gradient bifurcated": ["--gradient=bifurcated"],
    "gradient int4": ["--gradient=int4"],
    "gradient fp8": ["--gradient=fp8"],
    "gradient fp6": ["--gradient=fp6"],
    "gradient pruned": ["--gradient=pruned"],
    "gradient one_bit": ["--gradient=one_bit"],
    "norm l1": ["--norm=l1"],
    "norm range": ["--norm=range"],
    "norm top10": ["--norm=top10"],
    "norm linf": ["--norm=linf"],
    "weights bounded": ["--weights=bounded"],
    "head hadamard": ["--head=hadamard"],
    "ghost batch 25": ["--ghost-batch=25"],
    "boolean": ["--optimizer=boolean"],
    "boolean, relative": ["--optimizer=boolean_relative"],
    "boolean, signs": ["--optimizer=boolean_sign"],
    "boolean, no leak": ["--optimizer=boolean_no_leak"],
    "boolean, narrow": ["--optimizer=boolean_narrow"],
    "bep": ["--optimizer=bep"],
}
DATA = {"mlp": "mnist", "resnet8": "cifar10", "cnv": "cifar10"}
BATCH = 100
_MEASURED, _COUNTED = "measured.json", "counted.json"


def folder_of(out: Path, network: str, method: str) -> Path:
    """Of the runs of a method."""
    return out / network / method.replace(",", "").replace(" ", "-")


def train(
    network: str, data_dir: Path, out: Path, *, epochs: int, seeds: list[int], train_images: int | None = None
) -> list[str]:
    """Trains what is not complete; gives what failed."""
    part = [] if train_images is None else [f"--train-images={train_images}"]
    failed = []
    for seed in seeds:
        for method, options in METHODS.items():
            run = folder_of(out, network, method) / f"seed-{seed}"
            if (run / SUMMARY).exists():
                continue
            if (run / CONFIGURATION).exists():
                words = ["--resume", str(run), "--allow-changes"]
            else:
                words = [
                    "methods",
                    f"--model={network}",
                    f"--dataset={DATA[network]}",
                    f"--data-dir={data_dir}",
                    *part,
                    *options,
                ]
                words += [f"--epochs={epochs}", f"--batch-size={BATCH}", f"--seed={seed}", f"--out={run}"]
            print(f"{network}, {method}, seed {seed}", flush=True)
            with redirect_stdout(io.StringIO()):
                status = bnn.cli.main(["train", *words])
            if status:
                failed.append(f"{method}, seed {seed}")
    return failed


def run_of(network: str, data_dir: Path, method: str) -> Run:
    """What is trained, by the recipe."""
    words = [option.removeprefix("--").split("=") for option in METHODS[method]]
    options: dict[str, Any] = {
        name.replace("-", "_"): int(value) if value.isdecimal() else value for name, value in words
    }
    common = {"data_dir": data_dir, "dataset": DATA[network], "model": network, "batch_size": BATCH, "epochs": 1}
    return load_recipe(locate_recipe("methods"))(**common, **options)


def measure_one(network: str, data_dir: Path, method: str) -> dict[str, float]:
    """Saved bytes, largest live bytes and seconds of a step, in this process."""
    run = run_of(network, data_dir, method)
    shape = run.data.image_shape
    memory = measure_step(run, input_shape=shape, batch_size=BATCH)
    time_s = measure_time(run, input_shape=shape, batch_size=BATCH)
    return {"saved_bytes": memory.graph_bytes, "peak_bytes": memory.peak_live_bytes, "step_s": time_s}


def count(network: str, data_dir: Path, out: Path) -> None:
    """Prices a step of each method, and keeps it."""
    for method in METHODS:
        run = run_of(network, data_dir, method)
        shape = run.data.image_shape
        run.take(*random_batch(shape, BATCH))  # makes the optimizer's state
        ledger = count_step(run.model, run.optimizer, shape, batch_size=BATCH, slices=run.slice_count(BATCH))
        path = folder_of(out, network, method) / _COUNTED
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"energy_j": ledger.energy_J(HOROWITZ_45NM)}), encoding="utf-8")


def measure(network: str, data_dir: Path, out: Path) -> None:
    """Measures what has not been, and keeps it."""
    for method in METHODS:
        path = folder_of(out, network, method) / _MEASURED
        if not path.exists():
            words = ["measure", f"--network={network}", f"--data-dir={data_dir}", f"--out={out}", f"--method={method}"]
            done = subprocess.run([sys.executable, "-m", "benchmarks.methods", *words], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{method}: {done.stderr}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(done.stdout.splitlines()[-1], encoding="utf-8")


def table(network: str, out: Path) -> str:
    """Means and sample deviations of the complete runs and of their differences to plain training with the same seed,
    beside what a step was measured to take.
    """
    lines = [
        "| method | seeds | test accuracy, % | beside plain | saved, KiB | peak, KiB | step, ms | energy, mJ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    accuracy = {method: accuracies(folder_of(out, network, method)) for method in METHODS}
    for method, found in accuracy.items():
        measured, counted = (_read(folder_of(out, network, method) / name) for name in (_MEASURED, _COUNTED))
        beside = [found[seed] - accuracy["plain"][seed] for seed in found.keys() & accuracy["plain"].keys()]
        cells = [
            method,
            str(len(found)),
            spread(list(found.values())),
            "" if not beside or method == "plain" else spread(beside, sign="+"),
            *(f"{measured[name] / 1024:,.0f}" if measured else "" for name in ("saved_bytes", "peak_bytes")),
            f"{1e3 * measured['step_s']:.1f}" if measured else "",
            f"{1e3 * counted['energy_j']:.2f}" if counted else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _read(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}  # type: ignore[no-any-return]


def accuracies(folder: Path) -> dict[str, float]:
    """Of the complete runs in a folder, by the name of their seed."""
    summaries: dict[str, Any] = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*/{SUMMARY}"))
    }
    return {name: summary["test_accuracy"] for name, summary in summaries.items()}


def spread(values: list[float], *, sign: str = "") -> str:
    """Mean and sample deviation in percent; `sign` "+" shows that of a mean above 0, too."""
    if not values:
        return "not measured"
    return f"{100 * mean(values):{sign}.2f}" + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure", "count", "table"))
    parser.add_argument("--network", choices=tuple(DATA), default="mlp")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train-images", type=int, help="of all training images, at random; all by default")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--method", choices=tuple(METHODS), help="measure this one here, and print it as JSON")
    options = parser.parse_args()
    if options.what == "train":
        seeds = [int(seed) for seed in options.seeds.split(",")]
        failed = train(
            options.network,
            options.data_dir,
            options.out,
            epochs=options.epochs,
            seeds=seeds,
            train_images=options.train_images,
        )
        if failed:
            raise SystemExit(f"these failed, the same command tries them again: {'; '.join(failed)}")
    elif options.method is not None:
        print(json.dumps(measure_one(options.network, options.data_dir, options.method)))
    elif options.what == "measure":
        measure(options.network, options.data_dir, options.out)
    elif options.what == "count":
        count(options.network, options.data_dir, options.out)
    if options.what in ("train", "table"):
        print(table(options.network, options.out))


if __name__ == "__main__":
    main()
