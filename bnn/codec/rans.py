"""Interleaved range asymmetric numeral systems (rANS): an entropy coder that works on many lanes at once.

Source: Duda 2013, arXiv 1311.2540 (asymmetric numeral systems); Giesen 2014, arXiv 1402.3392 (interleaving). A lane
is a number x in [2^16, 2^32). A symbol of probability f / 2^15, the smaller symbols having s / 2^15 together, makes it

    x' = (x // f) 2^15 + s + x mod f,

after the low 16 bits of x have been written out if x' would not fit. Decoding undoes this, last symbol first; so the
encoder runs backwards, and the decoder gives the symbols in their order. All lanes share one sequence of words: of
each step, those of the lanes that need one, in the order of the lanes.
"""

from array import array
from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from bnn.codec.errors import FormatError

PRECISION_BITS = 15
_WORD_BITS = 16
_LOWEST = 1 << _WORD_BITS
_MASK = (1 << PRECISION_BITS) - 1
_TOO_SHORT = "the code ends before its symbols do"

Array = npt.NDArray[np.int64]


def encode(frequencies: npt.NDArray[np.uint16], starts: npt.NDArray[np.uint16]) -> bytes:
    """Encodes symbols, which are given by their place among the probabilities.

    Args:
        frequencies: [steps, lanes], of each symbol, above 0, in units of 2^-15.
        starts: [steps, lanes], sum of the frequencies of the smaller symbols.

    Returns:
        The lanes' states (uint32 each), then the words (uint16), little-endian.
    """
    steps, lanes = frequencies.shape
    state = np.full(lanes, _LOWEST, np.int64)
    words = []
    for step in reversed(range(steps)):
        frequency = frequencies[step].astype(np.int64)
        full = np.flatnonzero(state >= frequency << (2 * _WORD_BITS - PRECISION_BITS))
        words.append(state[full].astype("<u2"))
        state[full] >>= _WORD_BITS
        quotient, remainder = np.divmod(state, frequency)
        state = (quotient << PRECISION_BITS) + remainder + starts[step]
    return state.astype("<u4").tobytes() + b"".join(chunk.tobytes() for chunk in reversed(words))


class Decoder:
    """Gives back the symbols of `encode`, a step at a time: `slots`, then `advance`, for each of them.

    Args:
        payload: what `encode` returned.
        lanes: how many there are.

    Raises:
        FormatError: the payload is too short or is not one of this coder.
    """

    def __init__(self, payload: bytes, *, lanes: int) -> None:
        _check_length(payload, lanes)
        self._state: Array = np.frombuffer(payload, "<u4", lanes).astype(np.int64)
        self._words: Array = np.frombuffer(payload, "<u2", offset=4 * lanes).astype(np.int64)
        self._next = 0
        _check_range(int(self._state.min(initial=2 * _LOWEST)))

    def slots(self) -> Array:
        """[lanes]: the numbers in [0, 2^15) that fall into the ranges of the next symbols."""
        return self._state & _MASK

    def advance(self, frequency: Array, start: Array) -> None:
        """Removes a symbol from each lane: the one into whose range, `start` and its `frequency`, the slot fell."""
        state = frequency * (self._state >> PRECISION_BITS) + (self._state & _MASK) - start
        empty = np.flatnonzero(state < _LOWEST)
        end = self._next + len(empty)
        if end > len(self._words):
            raise FormatError(_TOO_SHORT)
        state[empty] = (state[empty] << _WORD_BITS) | self._words[self._next : end]
        self._state, self._next = state, end

    def finish(self) -> None:
        """Raises FormatError if the code does not end here."""
        _check_end(self._next == len(self._words) and bool((self._state == _LOWEST).all()))


class SymbolDecoder:
    """The same for one symbol at a time; errors and arguments are those of `Decoder`."""

    def __init__(self, payload: bytes, *, lanes: int) -> None:
        _check_length(payload, lanes)
        self._state: list[int] = np.frombuffer(payload, "<u4", lanes).tolist()
        self._words = array("H", np.frombuffer(payload, "<u2", offset=4 * lanes).astype(np.uint16).tobytes())
        self._next = 0
        _check_range(min(self._state, default=_LOWEST))

    def take(self, lane: int, bounds: list[int]) -> int:
        """The next symbol of a lane, whose symbols' ranges begin at `bounds`, ascending; the last bound ends them.

        A step's lanes are asked in ascending order.
        """
        state = self._state[lane]
        slot = state & _MASK
        symbol = bisect_right(bounds, slot) - 1
        start = bounds[symbol]
        state = (bounds[symbol + 1] - start) * (state >> PRECISION_BITS) + slot - start
        if state < _LOWEST:
            if self._next == len(self._words):
                raise FormatError(_TOO_SHORT)
            state = (state << _WORD_BITS) | self._words[self._next]
            self._next += 1
        self._state[lane] = state
        return symbol

    def finish(self) -> None:
        """Raises FormatError if the code does not end here."""
        _check_end(self._next == len(self._words) and all(state == _LOWEST for state in self._state))


def _check_length(payload: bytes, lanes: int) -> None:
    if len(payload) < 4 * lanes or len(payload) % 2:
        raise FormatError(f"{len(payload)} bytes of code cannot hold {lanes} lanes")


def _check_range(least: int) -> None:
    if least < _LOWEST:
        raise FormatError("a lane of the code begins below its range")


def _check_end(ends: bool) -> None:
    if not ends:
        raise FormatError("the code does not end where its symbols do")
