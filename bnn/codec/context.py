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

EFFORT_PER_BYTE = 128
"""The effort of decoding that a byte of code is worth; see `effort`. Tensors of 1/16 bit a symbol take so much."""
_FREE_EFFORT = 1 << 16

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
    bits_each = bits / len(symbols[:_SAMPLE])
    steps = max(_LANE_BITS / bits_each, _LANE_DISTANCES * max(distances, default=0))
    lanes = math.ceil(len(symbols) / min(_MAX_STEPS, steps))
    # What takes next to no bytes gets more lanes, so that it takes little time as well.
    while len(symbols) // (2 * lanes) > max(distances, default=0) and (
        effort(len(symbols), lanes, levels, len(distances))
        > _FREE_EFFORT + EFFORT_PER_BYTE * (4 * lanes + bits_each * len(symbols) / 8)
    ):
        lanes *= 2
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
    if _effort_of_steps(size, lanes, levels, len(distances)) < _effort_of_symbols(size, len(distances)):
        decoder = rans.Decoder(code, lanes=lanes)
        model = _Model(np.zeros((steps, lanes), np.uint8), levels, distances)
        _decode_steps(decoder, model)
    else:
        one_by_one = rans.SymbolDecoder(code, lanes=lanes)
        model = _Model(np.zeros((steps, lanes), np.uint8), levels, distances)
        _decode_symbols(one_by_one, model)
    symbols = model.symbols.T.reshape(-1)
    if symbols[size:].any():
        raise FormatError("there are symbols past the end of the tensor")
    return symbols[:size]


def effort_of(payload: bytes, *, size: int, levels: int) -> float:
    """The effort of decoding a payload; see `effort`. Arguments and errors are those of `decode`."""
    lanes, distances, _ = _parse(payload, size, levels)
    return effort(size, lanes, levels, len(distances))


def effort(size: int, lanes: int, levels: int, distances: int) -> float:
    """How long decoding takes, in microseconds of the machine on which its terms were measured.

    Args:
        size: number of symbols.
        lanes: that they lie in.
        levels: of the symbols.
        distances: how many the contexts have.
    """
    steps = math.ceil(size / lanes)
    places: int = levels ** (distances + 1)
    updates = sum(1 for _ in _blocks(steps)) * places / 16
    return updates + min(_effort_of_steps(size, lanes, levels, distances), _effort_of_symbols(size, distances))


def _effort_of_steps(size: int, lanes: int, levels: int, distances: int) -> float:
    return math.ceil(size / lanes) * (8 + 2 * levels + 2 * distances) + size / 32


def _effort_of_symbols(size: int, distances: int) -> float:
    return size * (1 + distances / 4)


def _decode_steps(decoder: rans.Decoder, model: "_Model") -> None:
    """Decodes a step of all lanes at a time."""
    for begin, end in _blocks(len(model.symbols)):
        for step in range(begin, end):
            context = model.contexts(step, step + 1)[0]
            slot = decoder.slots()
            above = (slot >= model.start[level * model.size + context] for level in range(1, model.levels))
            symbol = sum(above, np.int64(0))
            model.symbols[step] = symbol
            place = symbol * model.size + context
            decoder.advance(model.frequency[place], model.start[place])
        model.learn(model.places(begin, end))
    decoder.finish()


def _decode_symbols(decoder: rans.SymbolDecoder, model: "_Model") -> None:
    """Decodes symbol by symbol, which is quicker where a step has so few that numpy's calls take longer than its work.

    Steps follow each other in the history, so that a lane's neighbour lies as many symbols back as there are lanes.
    """
    lanes, levels = model.symbols.shape[1], model.levels
    back = [distance * lanes for distance in model.distances]
    for begin, end in _blocks(len(model.symbols)):
        history = model.history(begin, end)
        bounds: dict[int, list[int]] = {}
        first = len(history) - (end - begin) * lanes
        for place in range(first, len(history)):
            context = 0
            for distance in back:
                context = context * levels + history[place - distance]
            if context not in bounds:
                bounds[context] = model.bounds(context)
            history[place] = decoder.take((place - first) % lanes, bounds[context])
        model.symbols[begin:end] = np.frombuffer(history, np.uint8, offset=first).reshape(-1, lanes)
        model.learn(model.places(begin, end))
    decoder.finish()


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
        levels: how many symbols there are.
        distances: of the contexts.
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
        self.levels, self.distances = levels, distances
        self.size = levels ** len(distances)
        # In halves: a symbol counts 2.
        self._counts = np.ones((levels, self.size), np.int64)
        self._estimate()

    def history(self, begin: int, end: int) -> bytearray:
        """The symbols of these steps and of those that their contexts reach back to, step by step."""
        return bytearray(self._history[begin : self._before + end])

    def bounds(self, context: int) -> list[int]:
        """Where the ranges of the symbols begin in a context, and where the last one ends."""
        return [*self.start[context :: self.size].tolist(), 1 << rans.PRECISION_BITS]

    def contexts(self, begin: int, end: int) -> Array:
        """[end - begin, lanes]: the contexts of these steps."""
        context = np.zeros((end - begin, self.symbols.shape[1]), np.int64)
        for distance in self.distances:
            first = self._before + begin - distance
            context *= self.levels
            context += self._history[first : first + end - begin]
        return context

    def places(self, begin: int, end: int) -> Array:
        """[end - begin, lanes]: where these steps' symbols in their contexts stand in the flat arrays."""
        return self.symbols[begin:end] * np.int64(self.size) + self.contexts(begin, end)

    def learn(self, places: Array) -> None:
        """Counts the symbols at `places`."""
        counted = np.bincount(places.reshape(-1), minlength=self.levels * self.size)
        self._counts += 2 * counted.reshape(self.levels, self.size)
        self._estimate()

    def _estimate(self) -> None:
        whole = 1 << rans.PRECISION_BITS
        frequency = 1 + self._counts * (whole - self.levels) // self._counts.sum(0)
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
