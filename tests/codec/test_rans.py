"""The entropy coder gives back what it was given, in as many bits as the probabilities promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.codec import rans
from bnn.codec.errors import FormatError

WHOLE = 1 << rans.PRECISION_BITS


def coded(symbols: np.ndarray, frequency: np.ndarray) -> bytes:
    """The code of symbols [steps, lanes] under one distribution."""
    start = frequency.cumsum() - frequency
    return rans.encode(frequency[symbols].astype(np.uint16), start[symbols].astype(np.uint16))


def decoded(code: bytes, frequency: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    start = frequency.cumsum() - frequency
    decoder = rans.Decoder(code, lanes=shape[1])
    symbols = np.empty(shape, np.int64)
    for step in range(shape[0]):
        symbols[step] = np.searchsorted(start, decoder.slots(), side="right") - 1
        decoder.advance(frequency[symbols[step]], start[symbols[step]])
    decoder.finish()
    return symbols


@st.composite
def distributions(draw) -> np.ndarray:
    cuts = draw(st.sets(st.integers(1, WHOLE - 1), min_size=1, max_size=5))
    return np.diff([0, *sorted(cuts), WHOLE])


@given(distributions(), st.integers(1, 60), st.integers(1, 7), st.integers(0, 2**32))
def test_round_trip_in_the_promised_bits(frequency, steps, lanes, seed):
    symbols = np.random.default_rng(seed).choice(len(frequency), (steps, lanes), p=frequency / WHOLE)
    code = coded(symbols, frequency)
    assert np.array_equal(decoded(code, frequency, symbols.shape), symbols)
    information = -np.log2(frequency[symbols] / WHOLE).sum()
    # A lane keeps 32 bits at its end, 16 of which were there at its start; a step loses well below 0.02 bits.
    assert information - 1 <= 8 * len(code) - 16 * lanes <= information + 17 * lanes + 0.02 * steps * lanes


def test_a_long_code_is_within_a_fifth_of_a_percent_of_the_entropy():
    frequency = np.array([800, 31000, 968])
    symbols = np.random.default_rng(0).choice(3, (20000, 8), p=frequency / WHOLE)
    information = -np.log2(frequency[symbols] / WHOLE).sum()
    assert 8 * len(coded(symbols, frequency)) < 1.002 * information + 32 * 8


def test_a_certain_symbol_costs_next_to_nothing():
    frequency = np.array([WHOLE - 1, 1])
    assert len(coded(np.zeros((1000, 1), np.int64), frequency)) == 4
    bits = 1000 * math.log2(WHOLE / (WHOLE - 1))
    assert bits < 0.05


def test_a_state_that_would_just_not_fit_is_written_out():
    """A symbol of probability 1/2 doubles the state, from 2^16: the sixteenth would make it 2^32."""
    frequency = np.array([WHOLE // 2, WHOLE // 2])
    for steps, words in ((15, 0), (16, 1), (31, 1), (32, 2)):
        symbols = np.zeros((steps, 1), np.int64)
        code = coded(symbols, frequency)
        assert len(code) == 4 + 2 * words
        assert int.from_bytes(code[:4], "little") == 2 ** (16 + steps % 16)
        assert np.array_equal(decoded(code, frequency, symbols.shape), symbols)


def test_a_code_of_nothing_is_the_lowest_state_of_each_lane():
    code = coded(np.zeros((0, 3), np.int64), np.array([WHOLE]))
    assert np.frombuffer(code, "<u4").tolist() == [1 << 16] * 3
    rans.Decoder(code, lanes=3).finish()


def test_damaged_codes_are_refused():
    frequency = np.array([WHOLE // 2, WHOLE // 2])
    code = coded(np.random.default_rng(0).integers(0, 2, (200, 2)), frequency)
    with pytest.raises(FormatError, match="ends before"):
        decoded(code[:-2], frequency, (200, 2))
    with pytest.raises(FormatError, match="does not end"):
        decoded(code + b"\0\0", frequency, (200, 2))
    with pytest.raises(FormatError, match="does not end"):
        decoded(code, frequency, (190, 2))
    with pytest.raises(FormatError, match="begins below"):
        rans.Decoder(b"\0" * 8, lanes=2)
    for short in (b"", code[:7], code[:-1]):
        with pytest.raises(FormatError, match="cannot hold"):
            rans.Decoder(short, lanes=2)


def test_a_code_shorter_than_the_states_of_its_lanes_is_refused():
    """Of an even length, which is no fault by itself."""
    for size in (0, 2, 6):
        with pytest.raises(FormatError, match=f"{size} bytes of code cannot hold 2 lanes"):
            rans.Decoder(bytes(size), lanes=2)
