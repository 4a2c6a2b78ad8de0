"""Weights, statistics and images that numpy alone makes from a seed, the same everywhere, for checks of the arithmetic.

Nothing of them is stored. Their numbers have few bits: sums of products are exact in float32 as long as signs depend on
them, in whatever order they are formed, so that no rounding decides a sign. For that, images are multiples of 1/2, real
kernels are -1, 0 and +1 with few others than 0, variances are powers of 4 once the norm's eps is added, and the mean
|w| of every filter of a binary kernel has few bits. `DoReFa`'s thirds are no such numbers: there, offsets keep what is
rounded away from halves.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Sequence[tuple[str, tuple[int, ...], float]]
"""Kind, shape and eps of a layer's tensors, as in `bnn.models.zoo.keras_order`."""

_PERIOD = 65_537  # prime, so that no axis of a tensor repeats with it
_NONZERO = 8  # about so many real weights of a filter
_GATE = 1024.0  # a gate's sigmoid is 0, 1/2 or 1
_THIRDS = "dorefanet"


def layer_values(name: str, index: int, tensors: Tensors, *, is_last: bool) -> list[Array]:
    """The tensors of a layer of a network, float32.

    Args:
        name: of the network.
        index: of the layer among those that have tensors.
        tensors: of the layer.
        is_last: whether it is the last layer with a kernel, whose sums no sign depends on.
    """
    return [
        np.asarray(_values(_Numbers(f"{name} {index} {place}"), kind, shape, eps, name, is_last), np.float32).reshape(
            shape
        )
        for place, (kind, shape, eps) in enumerate(tensors)
    ]


def image(name: str, size: tuple[int, int]) -> Array:
    """An image for a network, float32 [H, W, 3]."""
    return (_Numbers(f"{name} image").integers(-2, 2, (*size, 3)) / 2).astype(np.float32)


class _Numbers:
    """Whole numbers by a hash of a text and their position."""

    def __init__(self, text: str) -> None:
        self._seed = np.uint64(zlib.crc32(text.encode()) << 20)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        """From low to high, both included."""
        return np.resize(self._below(high - low + 1, shape).astype(np.int64) + low, shape)

    def signs(self, shape: tuple[int, ...]) -> Array:
        """-1 and +1, float32."""
        return np.resize(self._below(2, shape).astype(np.float32) * 2 - 1, shape)

    def _below(self, count: int, shape: tuple[int, ...]) -> Array:
        """From 0 on, for as many positions as differ."""
        x = np.arange(min(_PERIOD, math.prod(shape)), dtype=np.uint64) + self._seed
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finish of SplitMix64
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return ((x ^ (x >> np.uint64(31))) >> np.uint64(16)) % np.uint64(count)


def _values(numbers: _Numbers, kind: str, shape: tuple[int, ...], eps: float, name: str, is_last: bool) -> Array:
    match kind:
        case "binary_kernel":
            return _binary(numbers, shape)
        case "kernel" if len(shape) == 4:
            return _sparse(numbers, shape, shape[0] * shape[1] * (shape[2] if shape[3] > 1 else 1))
        case "kernel" if is_last:
            return numbers.integers(-8, 8, shape) / 2.0**16
        case "kernel" if shape[0] > shape[1]:
            return _sparse(numbers, shape, shape[0])
        case "kernel":
            rows = numbers.integers(0, 2 * shape[0] - 1, shape[1:])
            return np.where(np.arange(shape[0])[:, None] == rows // 2, _GATE * (1 - 2 * (rows % 2)), 0)
        case "blur":
            taps = np.array([1, 2, 1]) / 4
            return np.broadcast_to(np.outer(taps, taps)[:, :, None, None], shape)
        case "bias":
            return numbers.integers(-4, 4, shape) / 4
        case "gamma":
            return np.array([-0.5, 0.5, 0.5, 1, 1])[numbers.integers(0, 4, shape)]
        case "beta":
            offset = 2.0**-10 if name == _THIRDS else 0
            return (numbers.integers(-4, 3, shape) * 2 + 1) / 8 + offset
        case "moving_mean":
            return numbers.integers(-4, 4, shape)
        case "moving_variance":
            low, high = (2, 5) if name == _THIRDS else (-1, 4)
            return _variances(numbers.integers(low, high, shape), eps)
        case "alpha":
            return numbers.integers(-1, 3, shape) / 4
    raise ValueError(f"there are no values of {kind}")


def _binary(numbers: _Numbers, shape: tuple[int, ...]) -> Array:
    """Signs times 1/2 and 3/2 in turn, every second filter halved."""
    taps, filters = math.prod(shape[:-1]), shape[-1]
    values = numbers.signs((taps, filters))
    values[::2] *= np.float32(0.5)
    values[1::2] *= np.float32(1.5)
    values[:, 1::2] *= np.float32(0.5)
    return values


def _sparse(numbers: _Numbers, shape: tuple[int, ...], taps: int) -> Array:
    """-1 and +1 among zeros, about `_NONZERO` of them among so many taps."""
    drawn = numbers.integers(0, 2 * max(1, taps // _NONZERO) - 1, shape)
    return np.where(drawn == 0, 1.0, np.where(drawn == 1, -1.0, 0.0))


def _variances(exponents: Array, eps: float) -> Array:
    """Numbers that are powers of 4 once eps is added in float32."""
    powers = (4.0**exponents).astype(np.float32)
    added = np.float32(eps)
    variances = powers - added
    for end in (0, np.inf):
        near = np.nextafter(variances, np.float32(end))
        variances = np.where((variances + added != powers) & (near + added == powers), near, variances)
    if not np.array_equal(variances + added, powers):
        raise ValueError(f"there are no such variances for an eps of {eps}")
    return variances
