"""Speed and traffic of ranks that share each batch: torchrun --nproc-per-node 2 -m benchmarks.ranks --exchange count.

Random images, BinaryNet, one warm-up step; the median of the steps that follow, on the slowest rank. Without torchrun
and `--exchange` it is one process. OMP_NUM_THREADS gives the threads of a rank.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from bnn.distributed import exchange_of, join, leave
from bnn.models import binarynet
from bnn.presets import prepare

SHAPE, CLASSES = (3, 32, 32), 10


def main() -> None:
    """Measures and prints a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchange", choices=("exact", "count", "vote"))
    parser.add_argument("--preset", default="edge-signs")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--slice-size", type=int, help="by default the preset's own")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    step = prepare(options.preset, binarynet, input_shape=SHAPE)
    step.slice_size = options.slice_size or step.slice_size
    batch, ranks = options.batch_size, None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch, *SHAPE), generator=generator).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,), generator=generator)
    if options.exchange is not None:
        ranks = join(patience_s=100)
        step.exchange = exchange_of(options.exchange, ranks)
        rows = step.exchange.rows(batch, step.slice_count(batch))
        x, labels = x[rows].contiguous(memory_format=torch.channels_last), labels[rows]
    times = []
    for _ in range(1 + options.steps):
        sent, begun = ranks.sent_bytes if ranks else 0, time.perf_counter()
        step.take(x, labels)
        times.append(time.perf_counter() - begun)
    median_s = statistics.median(times[1:])
    if ranks is not None:
        median_s, sent = ranks.agree(median_s), ranks.sent_bytes - sent
    if ranks is None or ranks.rank == 0:
        print(
            f"{options.preset}, batch {batch} in slices of {step.slice_size}, {ranks.size if ranks else 1} ranks of"
            f" {torch.get_num_threads()} threads, {options.exchange or 'no exchange'}: {1e3 * median_s:.0f} ms a step,"
            f" {batch / median_s:.1f} images/s, {sent / 1e6:.2f} MB a step sent by each"
        )
    leave()


if __name__ == "__main__":
    main()
