"""Contexts: round trips, and sizes against entropies that are known."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.codec import context, rans
from bnn.codec.errors import FormatError

LARGE = 1 << 30


def encoded(symbols, *, levels: int, row: int = 9) -> bytes:
    payload = context.encode(np.asarray(symbols, np.uint8), levels=levels, row=row, below=LARGE)
    assert payload is not None
    return payload


def distances(payload: bytes) -> tuple[int, ...]:
    _, count = struct.unpack_from("<IB", payload)
    return struct.unpack_from(f"<{count}I", payload, 5)


def entropy_bits(symbols) -> float:
    shares = np.bincount(symbols) / len(symbols)
    shares = shares[shares > 0]
    return -len(symbols) * float((shares * np.log2(shares)).sum())


@given(st.integers(2, 16), st.integers(1, 3000), st.integers(1, 40), st.integers(0, 2**32))
def test_round_trip(levels, size, row, seed):
    random = np.random.default_rng(seed)
    symbols = random.choice(levels, size, p=random.dirichlet(np.full(levels, 0.5))).astype(np.uint8)
    # A part that repeats, so that some distance is worth taking.
    symbols[size // 2 :] = np.resize(symbols[:row], size - size // 2)
    payload = encoded(symbols, levels=levels, row=row)
    assert np.array_equal(context.decode(payload, size=size, levels=levels), symbols)


@pytest.mark.parametrize(("levels", "back"), [(2, ()), (3, (1, 7)), (16, (2,))])
def test_both_ways_of_decoding_give_the_same(levels, back):
    symbols = np.random.default_rng(levels).choice(levels, (50, 6)).astype(np.uint8)
    learned = context._Model(symbols, levels, back)
    frequencies, starts = np.empty(symbols.shape, np.uint16), np.empty(symbols.shape, np.uint16)
    for begin, end in context._blocks(len(symbols)):
        places = learned.places(begin, end)
        frequencies[begin:end], starts[begin:end] = learned.frequency[places], learned.start[places]
        learned.learn(places)
    code = rans.encode(frequencies, starts)
    for decode, decoder in ((context._decode_steps, rans.Decoder), (context._decode_symbols, rans.SymbolDecoder)):
        model = context._Model(np.zeros_like(symbols), levels, back)
        decode(decoder(code, lanes=6), model)
        assert np.array_equal(model.symbols, symbols)
        for damaged in (code[:-2], code + b"\0\0", b"\0" * 4 + code[4:], code[:20]):
            with pytest.raises(FormatError):
                decode(decoder(damaged, lanes=6), context._Model(np.zeros_like(symbols), levels, back))


def decoded_by_the_book(payload: bytes, size: int, levels: int) -> list[int]:
    """A decoder written from docs/model-file.md alone, one number at a time."""
    lanes, count = struct.unpack_from("<IB", payload)
    back = struct.unpack_from(f"<{count}I", payload, 5)
    code = payload[5 + 4 * count :]
    states = list(struct.unpack_from(f"<{lanes}I", code))
    words = iter(struct.unpack(f"<{len(code) // 2 - 2 * lanes}H", code[4 * lanes :]))
    counts = [[1] * levels for _ in range(levels**count)]
    numbers: list[list[int]] = [[] for _ in range(lanes)]
    steps, step, block_ends = -(-size // lanes), 0, 1
    seen: list[tuple[int, int]] = []
    while step < steps:
        if step == block_ends or step == 0:
            for context_of, number in seen:
                counts[context_of][number] += 2
            seen, block_ends = [], step + max(1, step // 8)
            shares = []
            for of in counts:
                share = [1 + c * (2**15 - levels) // sum(of) for c in of]
                share[of.index(max(of))] += 2**15 - sum(share)
                shares.append(share)
        for lane in range(lanes):
            place = 0
            for distance in back:
                place = place * levels + (numbers[lane][step - distance] if step >= distance else 0)
            share, slot = shares[place], states[lane] % 2**15
            k = max(k for k in range(levels) if sum(share[:k]) <= slot)
            states[lane] = share[k] * (states[lane] >> 15) + slot - sum(share[:k])
            if states[lane] < 2**16:
                states[lane] = states[lane] << 16 | next(words)
            numbers[lane].append(k)
            seen.append((place, k))
        step += 1
    assert next(words, None) is None
    assert set(states) == {2**16}
    return [number for lane in numbers for number in lane][:size]


@pytest.mark.parametrize(("levels", "size", "share"), [(2, 700, 0.2), (3, 5000, 0.1), (5, 12000, 0.2)])
def test_the_format_is_the_documented_one(levels, size, share):
    random = np.random.default_rng(levels)
    symbols = random.choice(levels, size, p=[1 - share * (levels - 1), *[share] * (levels - 1)]).astype(np.uint8)
    symbols[20:] = np.where(random.random(size - 20) < 0.3, symbols[:-20], symbols[20:])
    payload = encoded(symbols, levels=levels, row=20)
    assert distances(payload) or levels == 2
    assert decoded_by_the_book(payload, size, levels) == symbols.tolist()


@pytest.mark.parametrize("size", [65536, 65537, 200_000])
def test_round_trip_over_several_lanes(size):
    symbols = np.random.default_rng(0).choice(3, size, p=[0.1, 0.8, 0.1]).astype(np.uint8)
    payload = encoded(symbols, levels=3)
    assert struct.unpack_from("<I", payload)[0] > 1
    assert np.array_equal(context.decode(payload, size=size, levels=3), symbols)


@pytest.mark.parametrize("density", [0.005, 0.05, 0.3, 2 / 3])
def test_independent_ternary_weights_take_their_entropy(density):
    probabilities = [density / 2, 1 - density, density / 2]
    symbols = np.random.default_rng(1).choice(3, 1 << 18, p=probabilities).astype(np.uint8)
    assert 8 * len(encoded(symbols, levels=3)) < 1.02 * entropy_bits(symbols)
    # h2(density) + density bits a weight: 0.3364 at 5 %.
    expected = -density * math.log2(density) - (1 - density) * math.log2(1 - density) + density
    assert entropy_bits(symbols) / len(symbols) == pytest.approx(expected, rel=0.05)


def test_neighbours_that_tell_a_symbol_are_found_and_used():
    random = np.random.default_rng(2)
    symbols = random.integers(0, 2, 1 << 16).astype(np.uint8)
    for i in range(28, len(symbols)):  # as 28 places before, but for one in twenty
        symbols[i] = symbols[i - 28] ^ (random.random() < 0.05)
    payload = encoded(symbols, levels=2, row=784)
    assert 28 in distances(payload)
    h2 = -0.05 * math.log2(0.05) - 0.95 * math.log2(0.95)
    assert 8 * len(payload) == pytest.approx(h2 * len(symbols), rel=0.05)
    assert entropy_bits(symbols) > 3 * 8 * len(payload)


def test_the_place_in_the_row_before_is_a_neighbour():
    row = np.random.default_rng(3).choice(3, 500).astype(np.uint8)
    payload = encoded(np.tile(row, 60), levels=3, row=500)
    assert distances(payload)[0] == 500
    assert len(payload) < 0.1 * entropy_bits(np.tile(row, 60)) / 8


def test_noise_takes_no_context():
    assert distances(encoded(np.random.default_rng(4).integers(0, 3, 5000), levels=3)) == ()


def test_what_does_not_pay_is_not_made():
    noise = np.random.default_rng(5).integers(0, 2, 8000).astype(np.uint8)
    assert context.encode(noise, levels=2, row=9, below=1000) is None
    payload = encoded(np.zeros(8000), levels=2)
    assert context.encode(np.zeros(8000, np.uint8), levels=2, row=9, below=len(payload)) is None
    assert context.encode(np.zeros(8000, np.uint8), levels=2, row=9, below=len(payload) + 1) == payload


def forged(lanes: int, where: tuple[int, ...], code: bytes = bytes(100)) -> bytes:
    return struct.pack(f"<IB{len(where)}I", lanes, len(where), *where) + code


@pytest.mark.parametrize(
    ("payload", "size", "message"),
    [
        (b"", 10, "ends within its header"),
        (forged(1, (1, 2))[:8], 10, "ends within its header"),
        (forged(0, ()), 10, "0 lanes"),
        (forged(11, ()), 10, "11 lanes"),
        (forged(0, ()), 0, "0 lanes"),
        (forged(1, ()), 0, "1 lanes"),
        (forged(1, ()), 65537, "1 lanes"),
        (forged(65535, ()), 1 << 40, "65535 lanes"),
        (forged(65535, ()), 1 << 31, "cannot hold"),
        (forged(1, (0,)), 10, "outside of the lane"),
        (forged(1, (10,)), 10, "outside of the lane"),
        (forged(2, (5,)), 10, "outside of the lane"),
        (forged(1, (1,) * 8), 10, "too many contexts"),
        (forged(1, ()), 10, "begins below"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(payload, size, message):
    with pytest.raises(FormatError, match=message):
        context.decode(payload, size=size, levels=3)


def test_symbols_past_the_end_are_refused():
    payload = encoded(np.r_[np.zeros(65536), np.ones(65537)], levels=2)
    with pytest.raises(FormatError, match="past the end"):
        context.decode(payload, size=131072 - 1, levels=2)
