"""Where the time of a training step goes, operation by operation.

    python -m benchmarks.profile_step --model resnet18 --batch 128 --preset edge-min --threads 2

Self time of each operation on the thread that runs the step, as shares of the step; native operations compute on all
threads in that time.
"""

import argparse
import time

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.contestants.measure import Task
from benchmarks.contestants.ours import build
from benchmarks.train_step import MODELS


def operation_times_s(task: Task) -> tuple[float, dict[str, float]]:
    """Wall time of a step, and the self time of each operation in it, as means over the task's steps."""
    torch.set_num_threads(task.threads)
    contestant = build(task)
    contestant.model.train()
    x, labels = torch.randn(task.batch, *task.input_shape), torch.randint(task.classes, (task.batch,))
    for _ in range(task.warmup):
        contestant.take_step(x, labels)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        begin = time.perf_counter()
        for _ in range(task.steps):
            contestant.take_step(x, labels)
        step_s = (time.perf_counter() - begin) / task.steps  # without the work of the profiler when it ends
    events = profiler.key_averages()
    return step_s, {event.key: event.self_cpu_time_total / 1e6 / task.steps for event in events}


def main() -> None:
    """Profiles the step of the command line and prints its operations, the longest first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step", description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="binarynet")
    parser.add_argument("--batch", type=int, default=100, metavar="N")
    parser.add_argument("--preset", default="edge-min", metavar="NAME")
    parser.add_argument("--warmup", type=int, default=2, metavar="N")
    parser.add_argument("--steps", type=int, default=3, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="operations to show (default 20)")
    chosen = parser.parse_args()
    shape, classes = MODELS[chosen.model]
    task = Task(
        chosen.model, shape, classes, chosen.batch, chosen.warmup, chosen.steps, chosen.threads, mode=chosen.preset
    )
    step_s, times = operation_times_s(task)
    table = Table(title=f"{chosen.model}, {chosen.preset}, batch {chosen.batch}: {step_s:.3f} s", box=SIMPLE_HEAD)
    table.add_column("operation")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for name, seconds in sorted(times.items(), key=lambda item: -item[1])[: chosen.rows]:
        table.add_row(name, f"{seconds * 1e3:.1f}", f"{seconds / step_s:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
