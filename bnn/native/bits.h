// Packing, unpacking and moving rows of bits.
#pragma once

#include "common.h"

namespace {

constexpr int64_t kChunk = 4096;  // elements of one task; a multiple of 64, so that chunks begin at a byte

inline uint64_t load_word(const uint8_t* bytes) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    return word;
}

inline int64_t count_bits(const uint8_t* bytes, int64_t count) {
    int64_t set = 0;
    for (int64_t i = 0; i < count; i += 8) {
        uint64_t word = 0;
        std::memcpy(&word, bytes + i, minimum(8, count - i));
        set += static_cast<int64_t>(popcount_of_word(word));
    }
    return set;
}

// Copies whole steps: reads and writes less than kSlackBytes past the end.
inline void copy_with_slack(uint8_t* to, const uint8_t* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += kSlackBytes) std::memcpy(to + i, from + i, kSlackBytes);
}

// Copies `bits` bits that begin at any bit of `from` to the first bit of `to`; the last byte's rest becomes clear.
inline void extract_bits(uint8_t* to, const uint8_t* from, int64_t first_bit, int64_t bits) {
    from += first_bit / 8;
    if (first_bit % 8 == 0 && bits % 8 == 0) {
        std::memcpy(to, from, bits / 8);
        return;
    }
    const int shift = static_cast<int>(first_bit % 8);
    const int64_t from_bytes = packed_bytes(shift + bits);
    for (int64_t i = 0; i < packed_bytes(bits); ++i) {
        const unsigned next = i + 1 < from_bytes ? from[i + 1] : 0;
        to[i] = static_cast<uint8_t>((from[i] | next << 8) >> shift);
    }
    if (bits % 8) to[bits / 8] &= static_cast<uint8_t>((1u << bits % 8) - 1);
}

// The reverse of extract_bits, into bits that are clear so far.
inline void insert_bits(uint8_t* to, int64_t first_bit, const uint8_t* from, int64_t bits) {
    to += first_bit / 8;
    const int shift = static_cast<int>(first_bit % 8);
    const int64_t to_bytes = packed_bytes(shift + bits);
    for (int64_t i = 0; i < packed_bytes(bits); ++i) {
        const unsigned shifted = static_cast<unsigned>(from[i]) << shift;
        to[i] |= static_cast<uint8_t>(shifted);
        if (i + 1 < to_bytes) to[i + 1] |= static_cast<uint8_t>(shifted >> 8);
    }
}

// Eight bytes of 0 or 1 to the bits of one byte.
inline uint8_t gather_byte(const uint8_t* truths) {
    return static_cast<uint8_t>((load_word(truths) * 0x0102040810204080) >> 56);
}

// The reverse of gather_byte.
inline void spread_byte(uint8_t* truths, uint8_t byte) {
    const uint64_t bit_of_each = uint64_t{byte} * 0x0101010101010101 & 0x8040201008040201;
    const uint64_t word = (bit_of_each + 0x7F7F7F7F7F7F7F7F) >> 7 & 0x0101010101010101;
    std::memcpy(truths, &word, 8);
}

// A float's sign bit and order are those of the integer with the same bits, so one template packs every format.
template <class Int>
bool truths_of_signs(const Int* x, uint8_t* truths, int64_t n, Int infinity) {
    constexpr Int magnitude = static_cast<Int>(~(Int{1} << (8 * sizeof(Int) - 1)));
    constexpr Int minus_zero = static_cast<Int>(~magnitude);
    Int nan = 0;
    for (int64_t i = 0; i < n; ++i) {
        truths[i] = (x[i] >= 0) | (x[i] == minus_zero);
        nan |= (x[i] & magnitude) > infinity;
    }
    return nan;
}

inline bool truths_of_bools(const uint8_t* x, uint8_t* truths, int64_t n) {
    for (int64_t i = 0; i < n; ++i) truths[i] = x[i] != 0;
    return false;
}

inline bool truths_of_codes(const int8_t* x, uint8_t* truths, int64_t n) {
    for (int64_t i = 0; i < n; ++i) truths[i] = x[i] >= 0;
    return false;
}

// Cuts each row into chunks and calls task(row, first element, elements, elements of a row, thread) for each.
template <class Task>
void for_chunks(int64_t rows, int64_t n, int threads, const Task& task) {
    if (n % 8 == 0) {  // rows without a gap are one long row
        n *= rows;
        rows = minimum(rows, 1);
    }
    const int64_t chunks = divide_up(n, kChunk);
    const int64_t per_task = maximum(1, kChunk / maximum(n, 1));  // short rows: several a task
    parallel_for(divide_up(rows * chunks, per_task), threads, [&](int64_t index, int thread) {
        const int64_t end = minimum((index + 1) * per_task, rows * chunks);
        for (int64_t i = index * per_task; i < end; ++i) {
            const int64_t first = i % chunks * kChunk;
            task(i / chunks, first, minimum(kChunk, n - first), n, thread);
        }
    });
}

template <class Truths>
bool pack_rows(uint8_t* out, int64_t rows, int64_t n, int threads, const Truths& truths_of) {
    bool any_nan = false;
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        alignas(64) uint8_t truths[kChunk];
        const int64_t bytes = packed_bytes(count);
        if (count % 8) std::memset(truths + bytes * 8 - 8, 0, 8);
        if (truths_of(row * row_elements + first, truths, count)) {
#pragma omp atomic write
            any_nan = true;
        }
        uint8_t* to = out + row * packed_bytes(row_elements) + first / 8;
        for (int64_t i = 0; i < bytes; ++i) to[i] = gather_byte(truths + 8 * i);
    });
    return any_nan;
}

template <class Int>
bool pack_signs(const void* x, uint8_t* out, int64_t rows, int64_t n, int64_t infinity, int threads) {
    return pack_rows(out, rows, n, threads, [&](int64_t first, uint8_t* truths, int64_t count) {
        return truths_of_signs(static_cast<const Int*>(x) + first, truths, count, static_cast<Int>(infinity));
    });
}

bool pack(const void* x, uint8_t* out, int64_t rows, int64_t n, int itemsize, int64_t infinity, int threads) {
    switch (itemsize) {
        case 2:
            return pack_signs<int16_t>(x, out, rows, n, infinity, threads);
        case 4:
            return pack_signs<int32_t>(x, out, rows, n, infinity, threads);
        case 8:
            return pack_signs<int64_t>(x, out, rows, n, infinity, threads);
        case -1:
            return pack_rows(out, rows, n, threads, [&](int64_t first, uint8_t* truths, int64_t count) {
                return truths_of_codes(static_cast<const int8_t*>(x) + first, truths, count);
            });
        default:
            return pack_rows(out, rows, n, threads, [&](int64_t first, uint8_t* truths, int64_t count) {
                return truths_of_bools(static_cast<const uint8_t*>(x) + first, truths, count);
            });
    }
}

template <class Int>
void unpack_to(const uint8_t* packed, void* out, int64_t rows, int64_t n, int64_t plus, int64_t minus, int threads) {
    alignas(64) Int of_byte[256][8];  // the eight elements of every byte
    for (int byte = 0; byte < 256; ++byte) {
        for (int i = 0; i < 8; ++i) of_byte[byte][i] = static_cast<Int>(byte >> i & 1 ? plus : minus);
    }
    for_chunks(rows, n, threads, [&](int64_t row, int64_t first, int64_t count, int64_t row_elements, int) {
        const uint8_t* from = packed + row * packed_bytes(row_elements) + first / 8;
        Int* to = static_cast<Int*>(out) + row * row_elements + first;
        for (int64_t i = 0; i < count / 8; ++i) std::memcpy(to + 8 * i, of_byte[from[i]], sizeof of_byte[0]);
        if (count % 8) std::memcpy(to + count / 8 * 8, of_byte[from[count / 8]], count % 8 * sizeof(Int));
    });
}

void unpack(const uint8_t* packed, void* out, int64_t rows, int64_t n, int itemsize, int64_t plus, int64_t minus,
            int threads) {
    switch (itemsize) {
        case 1:
            return unpack_to<uint8_t>(packed, out, rows, n, plus, minus, threads);
        case 2:
            return unpack_to<uint16_t>(packed, out, rows, n, plus, minus, threads);
        case 4:
            return unpack_to<uint32_t>(packed, out, rows, n, plus, minus, threads);
        default:
            return unpack_to<uint64_t>(packed, out, rows, n, plus, minus, threads);
    }
}

}  // namespace
