"""Speed of the packed operations on this CPU, beside torch's float operations of the same shape.

    python -m benchmarks.kernels [--json FILE]

Times are wall time of whole calls, the memory of the result included, on torch's number of threads: the median of some
repeats, and of several such medians the least, since other work on the machine only ever adds. A product of M x K and
K x N counts 2 M N K operations. What only moves data is told in gigabytes a second that the float operation would have
to read and write, so that both columns count the same work. Gradients are
those of the input and of the weight together, from an int8 gradient of the output, whose rounding is told apart;
torch's bfloat16 convolution works in slices of the batch, as it must where memory is small.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.ops import PoolWindow, Window, cpu

BATCH = 100
SLICE = 25
LINEAR_SHAPES = [(12800, 2304, 256), (100, 8192, 1024), (100, 1024, 1024)]
# (network, input channels, output channels, height and width); 3x3, same padding
CONV_SHAPES = [
    ("BinaryNet", 128, 128, 32),
    ("BinaryNet", 128, 256, 16),
    ("BinaryNet", 256, 256, 16),
    ("BinaryNet", 256, 512, 8),
    ("BinaryNet", 512, 512, 8),
    ("ResNet-18", 64, 64, 32),
    ("ResNet-18", 128, 128, 16),
    ("ResNet-18", 256, 256, 8),
    ("ResNet-18", 512, 512, 4),
]
CONVOLUTION = Window.of(padding=1)
POOL = PoolWindow.of(2)


@dataclass(frozen=True)
class Case:
    """Two ways to do the same work.

    Attributes:
        name: operation and shape.
        unit: of the rates: Gop/s or GB/s.
        work: 1e9 operations or bytes of one call.
        packed: the call on packed bits.
        dense: torch's call on floats.
    """

    name: str
    unit: str
    work: float
    packed: Callable[[], object]
    dense: Callable[[], object]


def median_s(run: Callable[[], object], *, rounds: int, budget_s: float = 0.25) -> float:
    """The least of `rounds` medians, each of the calls that fit into `budget_s`, at least three."""
    run()
    medians = []
    for _ in range(rounds):
        times_s: list[float] = []
        while len(times_s) < 3 or sum(times_s) < budget_s:
            begin = time.perf_counter()
            run()
            times_s.append(time.perf_counter() - begin)
        medians.append(statistics.median(times_s))
    return min(medians)


def random_bits(rows: int, n: int) -> Tensor:
    """Packed ±1 rows."""
    return torch.ops.bnn.pack(torch.randn(rows, n, generator=torch.Generator().manual_seed(rows + n)))


def linear_case(rows: int, features: int, outputs: int) -> Case:
    """A product of matrices."""
    x, weight = random_bits(rows, features), random_bits(outputs, features)
    dense_x, dense_weight = (torch.ops.bnn.unpack(bits, features, torch.float32) for bits in (x, weight))
    return Case(
        f"linear {rows} x {features} x {outputs}",
        "Gop/s",
        2e-9 * rows * features * outputs,
        lambda: torch.ops.bnn.linear(x, weight, features),
        lambda: F.linear(dense_x, dense_weight),
    )


def conv_case(network: str, channels: int, outputs: int, side: int) -> Case:
    """A 3x3 convolution with same padding; the floats are channels last, as the packed images are."""
    x_shape, weight_shape = [BATCH, channels, side, side], [outputs, channels, 3, 3]
    x, weight = random_bits(BATCH, channels * side**2), random_bits(outputs, channels * 9)
    dense_x, dense_weight = (
        torch.ops.bnn.unpack(bits, shape[1] * shape[2] * shape[3], torch.float32)
        .view(shape[0], shape[2], shape[3], shape[1])
        .permute(0, 3, 1, 2)
        for bits, shape in ((x, x_shape), (weight, weight_shape))
    )
    return Case(
        f"conv2d {network} {channels} -> {outputs} @ {side}",
        "Gop/s",
        2e-9 * BATCH * side**2 * outputs * channels * 9,
        lambda: torch.ops.bnn.conv2d(x, x_shape, weight, weight_shape, CONVOLUTION),
        lambda: F.conv2d(dense_x, dense_weight, padding=1),
    )


def random_gradient(*shape: int) -> tuple[Tensor, Tensor]:
    """An int8 gradient and its scale, channels last where it has any."""
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    memory_format = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return cast(
        tuple[Tensor, Tensor], torch.ops.bnn.quantize_integers(g.contiguous(memory_format=memory_format), 127, 0)
    )


def dense_linear_gradients(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's gradients of a fully connected layer's input and weight."""
    return grad @ weight, grad.t() @ x


def dense_conv_gradients(x: Tensor, weight: Tensor, grad: Tensor, images: int) -> None:
    """Torch's gradients of a convolution's input and weight, `images` at a time."""
    for first in range(0, len(x), images):
        part = slice(first, first + images)
        torch.ops.aten.convolution_backward(
            grad[part], x[part], weight, None, *CONVOLUTION.for_torch[:3], False, [0, 0], 1, [True, True, False]
        )


def linear_gradient_cases(rows: int, features: int, outputs: int) -> Iterator[Case]:
    """Both gradients of a fully connected layer."""
    x, weight, (q, scale) = random_bits(rows, features), random_bits(outputs, features), random_gradient(rows, outputs)

    def packed() -> None:
        torch.ops.bnn.linear_backward_input(q, scale, weight, features, torch.bfloat16)
        torch.ops.bnn.linear_backward_weight(q, scale, x, features)

    for dtype in (torch.float32, torch.bfloat16):
        dense_x, dense_weight = (torch.ops.bnn.unpack(bits, features, dtype) for bits in (x, weight))

        dense = partial(dense_linear_gradients, dense_x, dense_weight, q.to(dtype))
        name = f"gradients {rows} x {features} x {outputs} {str(dtype).removeprefix('torch.')}"
        yield Case(name, "Gop/s", 4e-9 * rows * features * outputs, packed, dense)


def conv_gradient_cases(network: str, channels: int, outputs: int, side: int) -> Iterator[Case]:
    """Both gradients of a 3x3 convolution with same padding."""
    x_shape, weight_shape = [BATCH, channels, side, side], [outputs, channels, 3, 3]
    x, weight = random_bits(BATCH, channels * side**2), random_bits(outputs, channels * 9)
    q, scale = random_gradient(BATCH, outputs, side, side)

    def packed() -> None:
        torch.ops.bnn.conv2d_backward_input(q, scale, weight, weight_shape, x_shape, CONVOLUTION, torch.bfloat16)
        torch.ops.bnn.conv2d_backward_weight(q, scale, x, x_shape, weight_shape, CONVOLUTION)

    for dtype, images in ((torch.float32, BATCH), (torch.bfloat16, SLICE)):
        dense_x, dense_weight = (
            torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
            for shape in (x_shape, weight_shape)
        )

        dense = partial(dense_conv_gradients, dense_x, dense_weight, q.to(dtype), images)
        name = f"gradients {network} {channels} -> {outputs} @ {side} {str(dtype).removeprefix('torch.')}"
        yield Case(name, "Gop/s", 4e-9 * BATCH * side**2 * outputs * channels * 9, packed, dense)


def moving_cases(channels: int = 128, side: int = 32, images: int = BATCH // 2) -> Iterator[Case]:
    """Packing, unpacking and pooling of BinaryNet's second layer."""
    n, shape = channels * side**2, [images, channels, side, side]
    GB = 4e-9 * images * n
    rows = torch.randn(images, n, generator=torch.Generator().manual_seed(0))
    bits = torch.ops.bnn.pack(rows)
    for dtype in (torch.float32, torch.bfloat16):
        x, size = rows.to(dtype), dtype.itemsize / 4
        name = str(dtype).removeprefix("torch.")
        yield Case(f"pack {name}", "GB/s", GB * size * 2, lambda x=x: torch.ops.bnn.pack(x), lambda x=x: x.sign())
        yield Case(
            f"unpack {name}",
            "GB/s",
            GB * size * 2,
            lambda dtype=dtype: torch.ops.bnn.unpack(bits, n, dtype),
            lambda x=x: x.clone(),
        )
        yield Case(
            f"quantize_integers {name}",
            "GB/s",
            GB * size * 2,
            lambda x=x: torch.ops.bnn.quantize_integers(x, 127, 0),
            lambda x=x: x.round(),
        )
    image = rows.view(images, side, side, channels).permute(0, 3, 1, 2).requires_grad_()
    pooled = F.max_pool2d(image, 2)
    grad = torch.ones_like(pooled)
    yield Case(
        "max_pool2d 2x2",
        "GB/s",
        GB * 1.25,
        lambda: torch.ops.bnn.max_pool2d(bits, shape, POOL),
        lambda: F.max_pool2d(image.detach(), 2),
    )
    yield Case(
        "max_pool2d_backward 2x2",
        "GB/s",
        GB * 1.25,
        lambda: torch.ops.bnn.max_pool2d_backward(grad, bits, shape, POOL),
        lambda: torch.autograd.grad(pooled, image, grad, retain_graph=True),
    )


def cases() -> Iterator[Case]:
    """All cases, one at a time, so that only one holds its memory."""
    yield from (linear_case(*shape) for shape in LINEAR_SHAPES)
    yield from (conv_case(*shape) for shape in CONV_SHAPES)
    for shape in LINEAR_SHAPES:
        yield from linear_gradient_cases(*shape)
    for network, *sizes in CONV_SHAPES:
        if network == "BinaryNet":
            yield from conv_gradient_cases(network, *sizes)
    yield from moving_cases()


def main() -> None:
    """Prints the table and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description="Speed of the packed operations beside torch's.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rates to this file")
    options = parser.parse_args()

    about = {
        "instruction_set": cpu.instruction_set(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'':46}{'packed':>9}{'torch':>9}{'':7}{'speed-up':>9}{'of linear':>11}")
    rows: list[dict[str, str | float]] = []
    best = 0.0
    for case in cases():
        packed = case.work / median_s(case.packed, rounds=7)
        dense = case.work / median_s(case.dense, rounds=2)
        rows.append({"name": case.name, "unit": case.unit, "packed": packed, "dense": dense})
        share = ""
        if case.unit == "Gop/s":
            best = max(best, packed if case.name.startswith("linear") else 0.0)
            share = "" if case.name.startswith("gradients") else f"{packed / best:.0%}"
        print(f"{case.name:46}{packed:9.1f}{dense:9.1f} {case.unit:6}{packed / dense:8.1f}x{share:>11}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
