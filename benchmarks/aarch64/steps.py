"""Training steps whose instructions are counted: python benchmarks/aarch64/steps.py NETWORK BATCH CONTESTANT...

A contestant is a preset of this package, or `torch`, plain PyTorch in float32. Each takes a step, and then one between
two calls of getppid, at which benchmarks/aarch64/count.c prints the instructions since the call before.
"""

import os
import sys

import torch

from benchmarks.contestants import ours, plain_torch
from benchmarks.contestants.measure import Task
from benchmarks.contestants.torch_training import Contestant, synthetic_batch
from bnn.ops import cpu

_SHAPES = {"mlp": (1, 28, 28), "cnv": (3, 32, 32), "binarynet": (3, 32, 32)}


def contestant_of(name: str, network: str, batch: int) -> tuple[Contestant, Task]:
    """What takes the steps, and its task."""
    task = Task(network, _SHAPES[network], 10, batch, warmup=1, steps=1, threads=1, mode=name)
    return (plain_torch.build(task) if name == "torch" else ours.build(task)), task


def main() -> None:
    """Takes the steps of the command line."""
    network, batch, *names = sys.argv[1:]
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, kernels {cpu.instruction_set()}", flush=True)
    for name in names:
        contestant, task = contestant_of(name, network, int(batch))
        x, labels = synthetic_batch(task)
        contestant.model.train()
        for _ in range(task.warmup):
            contestant.take_step(x, labels)
        os.getppid()
        contestant.take_step(x, labels)
        os.getppid()
        print(f"{network}, batch {batch}, {name}: the count above", flush=True)


if __name__ == "__main__":
    main()
