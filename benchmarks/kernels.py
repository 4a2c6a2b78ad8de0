"""Speed of the packed operations on this CPU, beside torch's float32 operations of the same shape.

    python -m benchmarks.kernels [--json FILE]

Times are wall time of whole calls, with torch's number of threads: the median of some repeats, and of several such
medians the least, since other work on the machine only ever adds. A product of M x K and K x N counts 2 M N K
operations; the operations that only move data are told in gigabytes a second, read plus written.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BATCH = 100
LINEAR_SHAPES = [(12800, 2304, 256), (100, 8192, 1024), (100, 1024, 1024)]
# (network, input channels, output channels, height and width); 3x3, same padding
CONV_SHAPES = [
    ("binarynet", 128, 128, 32),
    ("binarynet", 128, 256, 16),
    ("binarynet", 256, 256, 16),
    ("binarynet", 256, 512, 8),
    ("binarynet", 512, 512, 8),
    ("resnet18", 64, 64, 32),
    ("resnet18", 128, 128, 16),
    ("resnet18", 256, 256, 8),
    ("resnet18", 512, 512, 4),
]


@dataclass(frozen=True)
class Row:
    """One measured operation.

    Attributes:
        name: what was run.
        unit: of `packed` and `float32`: Gop/s or GB/s.
        packed: rate of the packed operation.
        float32: rate of torch's float32 operation that does the same work.
        share: `packed` as a share of the best product, or None where nothing is multiplied.
    """

    name: str
    unit: str
    packed: float
    float32: float
    share: float | None = None


def median_s(run: Callable[[], object], *, rounds: int = 5, budget_s: float = 0.3) -> float:
    """The least of `rounds` medians, each over `budget_s` of repeats or at least three."""
    run()
    medians = []
    for _ in range(rounds):
        times: list[float] = []
        while len(times) < 3 or sum(times) < budget_s:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        medians.append(statistics.median(times))
    return min(medians)


def random_bits(rows: int, n: int, generator: torch.Generator) -> Tensor:
    """Packed random ±1 rows."""
    return torch.ops.bnn.pack(torch.rand(rows, n, generator=generator) < 0.5)


def linear_row(rows: int, features: int, outputs: int, generator: torch.Generator) -> Row:
    """A product of packed matrices, and torch's product of float32 matrices."""
    x, weight = random_bits(rows, features, generator), random_bits(outputs, features, generator)
    x_float, weight_float = torch.randn(rows, features), torch.randn(outputs, features)
    gigaops = 2e-9 * rows * features * outputs
    return Row(
        f"linear {rows}x{features}x{outputs}",
        "Gop/s",
        gigaops / median_s(lambda: torch.ops.bnn.linear(x, weight, features)),
        gigaops / median_s(lambda: F.linear(x_float, weight_float), rounds=2),
    )


def conv_row(network: str, channels: int, outputs: int, side: int, generator: torch.Generator) -> Row:
    """A packed 3x3 convolution, and torch's float32 convolution of channels-last tensors."""
    x_shape, weight_shape = [BATCH, channels, side, side], [outputs, channels, 3, 3]
    x = random_bits(BATCH, channels * side**2, generator)
    weight = random_bits(outputs, channels * 9, generator)
    x_float = torch.randn(x_shape).to(memory_format=torch.channels_last)
    weight_float = torch.randn(weight_shape).to(memory_format=torch.channels_last)
    gigaops = 2e-9 * BATCH * side**2 * outputs * channels * 9
    return Row(
        f"conv2d {network} {channels}->{outputs} @{side}",
        "Gop/s",
        gigaops / median_s(lambda: torch.ops.bnn.conv2d(x, x_shape, weight, weight_shape, 1, 1, 1, 1)),
        gigaops / median_s(lambda: F.conv2d(x_float, weight_float, padding=1), rounds=2),
    )


def moving_rows(generator: torch.Generator) -> list[Row]:
    """Packing, unpacking and pooling of BinaryNet's second layer."""
    channels, side = 128, 32
    shape, n = [BATCH, channels, side, side], channels * side**2
    x_float = torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
    rows = x_float.permute(0, 2, 3, 1).flatten(1)
    bits = torch.ops.bnn.pack(rows)
    grad = torch.randn(BATCH, channels, side // 2, side // 2).to(memory_format=torch.channels_last)
    pool = ([2, 2], [2, 2], [0, 0], [1, 1])
    argument = x_float.clone().requires_grad_()
    pooled = F.max_pool2d(argument, 2)

    elements = BATCH * n
    packed_GB, float_GB = elements / 8e9, elements * 4e-9

    def row(name: str, moved_GB: float, packed: Callable[[], object], dense: Callable[[], object]) -> Row:
        return Row(name, "GB/s", moved_GB / median_s(packed), moved_GB / median_s(dense, rounds=2))

    ops = torch.ops.bnn
    return [
        row("pack float32", float_GB + packed_GB, lambda: ops.pack(rows), lambda: rows.sign()),
        row(
            "pack bfloat16",
            float_GB / 2 + packed_GB,
            lambda: ops.pack(rows_bf16),
            lambda: rows_bf16.sign(),
        )
        if (rows_bf16 := rows.bfloat16()) is not None
        else None,
    ]
