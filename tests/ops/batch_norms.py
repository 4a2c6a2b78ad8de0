"""Operands of the passes of a batch norm, their specifications and how kernels are compared with these."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from bnn.ops import OPERATIONS
from bnn.ops.batch_norm import clamped
from bnn.ops.packing import packed_bytes, unpack
from bnn.quantizers import ApproxSign, Sign
from tests.contracts import randn
from tests.ops.comparison import generator, random_bits, same

bnn = torch.ops.bnn

seeds = st.integers(0, 2**31 - 1)
product_dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
stream_dtypes = st.sampled_from([torch.float32, torch.bfloat16])
channel_counts = st.sampled_from([1, 2, 3, 5, 8, 11, 16, 33, 64, 70])
shapes = st.one_of(
    st.tuples(st.integers(1, 40), channel_counts),
    st.tuples(st.integers(1, 4), channel_counts, st.integers(1, 9), st.integers(1, 9)),
)
# No code, one plane and two, by the slopes of a clamp, of the windows and of the polynomial.
slope_lists = st.sampled_from([(1.0,), Sign().slope_steps.slopes, ApproxSign().slope_steps.slopes, (-0.5, 2.0)])
edge_lists = st.sampled_from([Sign().slope_steps.edges, ApproxSign().slope_steps.edges, (math.inf,), (0.0, 0.5, 0.5)])
# Many runs of a kernel; rows that end inside a byte, and rows shorter than one; one channel; one pixel.
LARGE = [(2, 128, 17, 16), (3, 33, 21, 19), (1000, 5), (700, 64), (2, 3, 60, 5), (5, 1), (1, 7, 1, 1)]


def spread(of_channel: Tensor, x: Tensor) -> Tensor:
    return of_channel.view(1, -1, *(1 for _ in x.shape[2:]))


def channel_dims(x: Tensor) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != 1)


def whole(shape: Sequence[int], seed: int, *, largest: int = 64) -> Tensor:
    """Whole numbers, as products of bits are."""
    return torch.randint(-largest, largest + 1, tuple(shape), generator=generator(seed)).float()


def quarters(shape: Sequence[int], seed: int) -> Tensor:
    """Quarters within ±4: sums of these, of their products with slopes and with small whole numbers are exact."""
    return whole(shape, seed, largest=16) / 4


def codes_of(shape: Sequence[int], slopes: Sequence[float], seed: int) -> Tensor:
    planes = (len(slopes) - 1).bit_length()
    n = math.prod(shape[1:])
    if not planes:
        return torch.empty((0, shape[0], packed_bytes(n)), dtype=torch.uint8)
    return torch.stack([random_bits(shape[0], n, seed + plane) for plane in range(planes)])


def slopes_of(codes: Tensor, slopes: Sequence[float], like: Tensor) -> Tensor:
    """The slope of each element, float64, where `like` has it."""
    last = like.movedim(1, -1)
    code = torch.zeros(last.shape, dtype=torch.long)
    for plane, bits in enumerate(codes):
        code += 2**plane * unpack(bits, last[0].numel(), torch.bool).view(last.shape).long()
    return torch.tensor(slopes, dtype=torch.float32).double()[code].movedim(-1, 1)


def code_of(codes: Tensor, like: Tensor) -> Tensor:
    return slopes_of(codes, range(2 ** len(codes)), like)


def in_memory_order(last: bool, *tensors: Tensor) -> list[Tensor]:
    """The tensors channels last, or first."""
    return [x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x.contiguous() for x in tensors]


def gradient_inputs(shape: Sequence[int], slopes: Sequence[float], seed: int) -> tuple[Any, ...]:
    """The gradient, its codes and slopes, and the product."""
    return quarters(shape, seed), codes_of(shape, slopes, seed + 1), list(slopes), whole(shape, seed + 3)


def of_channels(channels: int, seed: int) -> list[Tensor]:
    return [randn(channels, seed=seed + i) / (1 + 9 * i) for i in range(3)]


def terms_of(channels: int, seed: int) -> Tensor:
    return torch.stack(of_channels(channels, seed))


# Of -0 between 0 and 1 torch's clamp makes -0 on x86 and 0 on ARM, and the kernels -0 everywhere.
CLAMP_KEEPS_ZEROS = bool(torch.full((8,), -0.0).clamp(0.0, 1.0).signbit().all())


class Norm(NamedTuple):
    """A norm behind a scale, with its running statistics, in the order of the operation's arguments."""

    scale: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    eps: float
    running_mean: Tensor
    running_var: Tensor
    momentum: float


def norm_of(channels: int, seed: int, *, plain: bool = False) -> Norm:
    """Plain: without scale, gamma and beta."""
    scale, gamma, beta = (None, None, None) if plain else of_channels(channels, seed)
    return Norm(scale, gamma, beta, 1e-3, randn(channels, seed=seed + 5), 1 + randn(channels, seed=seed + 6) ** 2, 0.25)


def statistics(y: Tensor, norm: Norm, run: Callable[..., Any] = bnn.batch_statistics) -> list[Tensor]:
    """The operation's results, and the running statistics that it leaves."""
    running = [norm.running_mean.clone(), norm.running_var.clone()]
    results = run(y, *norm[:4], *running, norm.momentum)
    return [*results, *running]


def norm_clamp(y: Tensor, *args: Any, run: Callable[..., Any] = bnn.norm_clamp_) -> tuple[Tensor, Tensor]:
    """The values that the operation leaves in the place of a copy of `y`, and the codes."""
    (place,) = in_memory_order(True, y.clone())
    codes = run(place, *args)
    return clamped(place), codes


def check_norm_clamp(y: Tensor, *args: Any) -> None:
    (got, codes), (expected, of_torch) = norm_clamp(y, *args), norm_clamp(y, *args, run=OPERATIONS["norm_clamp_"])
    if not CLAMP_KEEPS_ZEROS:
        got, expected = got + 0.0, expected + 0.0
    same((got, codes), (expected, of_torch))


def check_statistics(y: Tensor, norm: Norm) -> None:
    same(statistics(y, norm), statistics(y, norm, OPERATIONS["batch_statistics"]))


def uneven(*shape: int) -> Tensor:
    """Values of many scales that cancel: what is left of their sum is the rounding, which depends on the order."""
    half = randn(*shape) * 10 ** (5 * randn(*shape, seed=1))
    return torch.cat([half, -half.flip(0)])


IMAGES = uneven(2, 40, 30, 31)
ONES = torch.ones(40)
OF_GRAD_ALONE = torch.tensor([[1.0], [0.0], [0.0]]).expand(3, 40)
PLANE = codes_of(IMAGES.shape, (1.0, 0.0), 3)
