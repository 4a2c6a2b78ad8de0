"""Adaptive context modelling of weights that have few levels.

The sequence of symbols is cut into lanes, which are coded side by side, one symbol of each a step. The context of a
symbol is the symbols that lie at certain distances before it in its lane: its neighbours in the filter, or the same
place of the filter before. Each context counts the symbols that it has seen, in all lanes, and the counts give
the probabilities of the next (Krichevsky and Trofimov 1981: every count begins at 1/2). These are brought up to date
at steps that come ever more rarely, so that almost all of the work is on whole arrays.

Payload, little-endian: lanes (uint32), number of distances (uint8), the distances (uint32 each), then the code of
`bnn.codec.rans`. Lane i holds the symbols from i * steps on, steps = ceil(size / lanes); symbols past the end are 0.
"""

import math
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bnn.codec import rans
from bnn.codec.errors import FormatError

MAX_LEVELS = 16
# Of the format. The limit of steps bounds the time that a decoder takes in its loop.
_MAX_CONTEXTS = 4096
_MAX_STEPS = 65536
_STEPS_PER_UPDATE = 8

# Choices of this encoder, which a decoder need not know. A lane costs about 24 bits more than its symbols, the first of
# which lack a context.
_LANE_BITS = 16384
_LANE_DISTANCES = 32
_SAMPLE = 1 << 17
_NEAR = 32
_MIN_GAIN = 0.002
_DISTANCE_BITS = 40

Symbols = npt.NDArray[np.uint8]
Array = npt.NDArray[np.int64]


def encode(symbols: Symbols, *, levels: int, row: int, below: int) -> bytes | None:
    """Encodes symbols.

    Args:
        symbols: [n], each below `levels`; n at least 1.
        levels: 2 to `MAX_LEVELS`.
        row: distance of the same place in the row before, at least 1.
        below: bytes from which on the result is of no use.

    Returns:
        The payload, or None where it would take `below` bytes or more.
    """
    distances, bits = _choose_distances(symbols[:_SAMPLE], levels, row)
    steps = max(_LANE_BITS * len(symbols[:_SAMPLE]) / bits, _LANE_DISTANCES * max(distances, default=0))
    lanes = math.ceil(len(symbols) / min(_MAX_STEPS, steps))
    steps = math.ceil(len(symbols) / lanes)
    padded = np.zeros(lanes * steps, np.uint8)
    padded[: len(symbols)] = symbols
    model = _Model(padded.reshape(lanes, steps).T, levels, distances)
    frequencies, starts = np.empty((steps, lanes), np.uint16), np.empty((steps, lanes), np.uint16)
    for begin, end in _blocks(steps):
        places = model.places(begin, end)
        frequencies[begin:end] = model.frequency[places]
        starts[begin:end] = model.start[places]
        model.learn(places)
    header = struct.pack(f"<IB{len(distances)}I", lanes, len(distances), *distances)
    code_bits = frequencies.size * rans.PRECISION_BITS - np.log2(frequencies, dtype=np.float32).sum(dtype=np.float64)
    if len(header) + code_bits / 8 >= below:
        return None
    payload = header + rans.encode(frequencies, starts)
    return payload if len(payload) < below else None


def decode(payload: bytes, *, size: int, levels: int) -> Symbols:
    """The symbols of a payload, [size].

    Args:
        payload: from `encode`.
        size: number of symbols, at least 1.
        levels: 2 to `MAX_LEVELS`.

    Raises:
        FormatError: the payload is not one of `size` symbols. Memory is allocated only after the lengths have been
            checked. Several times `size` bytes are needed; the caller has to allow them.
    """
    lanes, distances, code = _parse(payload, size, levels)
    steps = math.ceil(size / lanes)
    decoder = rans.Decoder(code, lanes=lanes)
    model = _Model(np.zeros((steps, lanes), np.uint8), levels, distances)
    for begin, end in _blocks(steps):
        for step in range(begin, end):
            context = model.contexts(step, step + 1)[0]
            slot = decoder.slots()
            symbol = sum((slot >= model.start[level * model.size + context] for level in range(1, levels)), np.int64(0))
            model.symbols[step] = symbol
            place = symbol * model.size + context
            decoder.advance(model.frequency[place], model.start[place])
        model.learn(model.places(begin, end))
    decoder.finish()
    symbols = model.symbols.T.reshape(-1)
    if symbols[size:].any():
        raise FormatError("there are symbols past the end of the tensor")
    return symbols[:size]


def _parse(payload: bytes, size: int, levels: int) -> tuple[int, tuple[int, ...], bytes]:
    try:
        lanes, count = struct.unpack_from("<IB", payload)
        distances = struct.unpack_from(f"<{count}I", payload, 5)
    except struct.error:
        raise FormatError("the payload ends within its header") from None
    if not max(1, math.ceil(size / _MAX_STEPS)) <= lanes <= size:
        raise FormatError(f"{size} symbols cannot lie in {lanes} lanes")
    if levels**count > _MAX_CONTEXTS:
        raise FormatError(f"{levels} levels at {count} distances make too many contexts")
    if not all(1 <= distance < math.ceil(size / lanes) for distance in distances):
        raise FormatError(f"a distance lies outside of the lane: {distances}")
    return lanes, distances, payload[5 + 4 * count :]


class _Model:
    """Counts and probabilities of every context and symbol, as flat arrays over [levels, contexts].

    Attributes:
        symbols: [steps, lanes]; those from a step on may be filled in once the steps before it are known.
        size: number of contexts.
        frequency: of a symbol in a context, in units of 2^-15; above 0.
        start: sum of the frequencies of the smaller symbols.
    """

    def __init__(self, symbols: Symbols, levels: int, distances: Sequence[int]) -> None:
        self._before = max(distances, default=0)
        steps, lanes = symbols.shape
        # What lies before a lane is 0.
        self._history = np.zeros((self._before + steps, lanes), np.uint8)
        self._history[self._before :] = symbols
        self.symbols = self._history[self._before :]
        self._levels, self._distances = levels, distances
        self.size = levels ** len(distances)
        # In halves: a symbol counts 2.
        self._counts = np.ones((levels, self.size), np.int64)
        self._estimate()

    def contexts(self, begin: int, end: int) -> Array:
        """[end - begin, lanes]: the contexts of these steps."""
        context = np.zeros((end - begin, self.symbols.shape[1]), np.int64)
        for distance in self._distances:
            first = self._before + begin - distance
            context *= self._levels
            context += self._history[first : first + end - begin]
        return context

    def places(self, begin: int, end: int) -> Array:
        """[end - begin, lanes]: where these steps' symbols in their contexts stand in the flat arrays."""
        return self.symbols[begin:end] * np.int64(self.size) + self.contexts(begin, end)

    def learn(self, places: Array) -> None:
        """Counts the symbols at `places`."""
        counted = np.bincount(places.reshape(-1), minlength=self._levels * self.size)
        self._counts += 2 * counted.reshape(self._levels, self.size)
        self._estimate()

    def _estimate(self) -> None:
        whole = 1 << rans.PRECISION_BITS
        frequency = 1 + self._counts * (whole - self._levels) // self._counts.sum(0)
        frequency[self._counts.argmax(0), np.arange(self.size)] += whole - frequency.sum(0)
        self.start = (frequency.cumsum(0) - frequency).reshape(-1)
        self.frequency = frequency.reshape(-1)


def _blocks(steps: int) -> Iterator[tuple[int, int]]:
    """Steps that share their probabilities, as (begin, end): an eighth of what has been seen, at least one."""
    begin = 0
    while begin < steps:
        end = min(steps, begin + max(1, begin // _STEPS_PER_UPDATE))
        yield begin, end
        begin = end


def _choose_distances(symbols: Symbols, levels: int, row: int) -> tuple[tuple[int, ...], float]:
    """Takes the distance that saves most, then the next, until none saves much; and the bits that are left then."""
    candidates = {d for d in (*range(1, _NEAR + 1), row, 2 * row) if d < min(_MAX_STEPS, len(symbols)) / 4}
    chosen: tuple[int, ...] = ()
    cost = _cost_bits(symbols, levels, chosen)
    while candidates and levels ** (len(chosen) + 1) <= _MAX_CONTEXTS:
        costs = {distance: _cost_bits(symbols, levels, (*chosen, distance)) for distance in sorted(candidates)}
        best = min(costs, key=costs.__getitem__)
        if cost - costs[best] < max(_MIN_GAIN * cost, _DISTANCE_BITS):
            break
        chosen, cost = (*chosen, best), costs[best]
        candidates.remove(best)
    return chosen, cost


def _cost_bits(symbols: Symbols, levels: int, distances: Sequence[int]) -> float:
    """Bits that a single lane would take, from its empirical entropy and the price of learning the counts.

    Source of the latter, half the logarithm of its number of samples for each probability: Rissanen 1978.
    """
    place = _Model(symbols[:, None], levels, distances).places(0, len(symbols))
    counts = np.bincount(place[:, 0], minlength=levels ** (len(distances) + 1)).reshape(levels, -1)
    totals = counts.sum(0)
    bits = (totals * np.log2(np.maximum(totals, 1))).sum() - (counts * np.log2(np.maximum(counts, 1))).sum()
    return float(bits + (levels - 1) / 2 * np.log2(totals + 1).sum())
