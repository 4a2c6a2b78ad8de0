// The sums of tables.h where each byte of the rows is within ±kSmallByte: a table's sums, made positive, are bytes, so that
// an addition stands for twice as many products as one of shorts. The sums of two quads still are bytes; even and odd
// columns of these are then added up in shorts.
#pragma once

#include "tables.h"

namespace {

constexpr int64_t kSmallByte = 15;                         // gradients of 5 bits
constexpr int64_t kQuadOffset = 4 * kSmallByte;            // what makes a quad's sums positive
constexpr int64_t kMostPairs = 65535 / (4 * kQuadOffset);  // of quads, whose sums a short holds

// Rows of tables of bytes.
template <int columns>
struct ByteRow {
    static constexpr int kBytes = columns < kShortsBytes ? columns : kShortsBytes;
    static constexpr int kEach = kBytes, kVectors = columns / kEach;
    typedef uint8_t Element;
    typedef uint8_t Vector __attribute__((vector_size(kBytes)));
    typedef uint16_t Shorts __attribute__((vector_size(kBytes)));
    typedef int8_t Bytes __attribute__((vector_size(kBytes)));
    static constexpr Element kOffset = kQuadOffset;
};

// Adds to sums[count][kVectors][2] what words[count] choose from tables of 2 * pairs quads: of each vector of columns all
// bytes as shorts, modulo 2^16, and the odd ones.
template <int columns, bool all>
[[gnu::noinline]] void add_chosen_bytes(const uint8_t* tables, int64_t pairs, const uint32_t* words, int64_t count,
                                        uint16_t* sums) {
    using Row = ByteRow<columns>;
    using Bytes = typename Row::Vector;
    using Shorts = typename Row::Shorts;
    constexpr int kShift = columns == 64 ? 6 : columns == 32 ? 5 : 4;  // a row's bytes
    static_assert(columns == 1 << kShift);
    constexpr int64_t kRow = 15 << kShift;
    for (int64_t i = 0; i < count; ++i, sums += columns) {
        Shorts both[Row::kVectors], odd[Row::kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < Row::kVectors; ++v) {
            both[v] = load_any<Shorts>(sums + v * Row::kBytes);
            odd[v] = load_any<Shorts>(sums + v * Row::kBytes + Row::kBytes / 2);
        }
        const uint64_t word = uint64_t{words[i]} << kShift;
#pragma GCC unroll 4
        for (int64_t pair = 0; pair < (all ? kQuads / 2 : pairs); ++pair) {
            const uint8_t* first = tables + pair * 32 * columns + (word >> 8 * pair & kRow);
            const uint8_t* second = tables + (pair * 32 + 16) * columns + (word >> (8 * pair + 4) & kRow);
#pragma GCC unroll 4
            for (int v = 0; v < Row::kVectors; ++v) {
                const Shorts sum = (Shorts)(load_any<Bytes>(first + v * Row::kBytes) +
                                            load_any<Bytes>(second + v * Row::kBytes));
                both[v] += sum;
                odd[v] += sum >> 8;
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < Row::kVectors; ++v) {
            store_any(sums + v * Row::kBytes, both[v]);
            store_any(sums + v * Row::kBytes + Row::kBytes / 2, odd[v]);
        }
    }
}

// As `ChosenSums`, which see.
template <int columns>
class ChosenByteSums {
   public:
    ChosenByteSums(int16_t* tables, int16_t* shorts, int64_t count, int32_t* sums, int64_t part_step)
        : tables_(reinterpret_cast<uint8_t*>(tables)),
          shorts_(reinterpret_cast<uint16_t*>(shorts)),
          count_(count),
          sums_(sums),
          part_step_(part_step) {}

    void add(const int8_t* rows, int64_t row_step, int64_t quads, const uint32_t* words) {
        const int64_t pairs = divide_up(quads, 2);
        make_tables<ByteRow<columns>>(rows, row_step, 2 * pairs, tables_);
        if (quads == kQuads) {
            add_chosen_bytes<columns, true>(tables_, pairs, words, count_, shorts_);
        } else {
            add_chosen_bytes<columns, false>(tables_, pairs, words, count_, shorts_);
        }
        pairs_ += pairs;
        if (pairs_ > kMostPairs - kQuads / 2) flush();
    }

    void flush() {
        using Row = ByteRow<columns>;
        typedef int32_t EightSums __attribute__((vector_size(32)));
        const EightSums offset = EightSums{} + static_cast<int32_t>(2 * kQuadOffset * pairs_);
        for (int64_t i = 0; pairs_ && i < count_; ++i) {
            for (int64_t column = 0; column < columns; column += 16) {
                uint16_t* from = shorts_ + i * columns + column / Row::kBytes * Row::kBytes + column % Row::kBytes / 2;
                const Pairs odd = load_any<Pairs>(from + Row::kBytes / 2), even = load_any<Pairs>(from) - (odd << 8);
                int32_t* to = sums_ + column / kPartColumns * part_step_ + i * kPartColumns + column % kPartColumns;
                add_eight(to, __builtin_convertvector(lower_halves(even, odd), EightSums) - offset);
                add_eight(to + 8, __builtin_convertvector(upper_halves(even, odd), EightSums) - offset);
            }
            std::memset(shorts_ + i * columns, 0, columns * sizeof *shorts_);
        }
        pairs_ = 0;
    }

   private:
    template <class EightSums>
    static void add_eight(int32_t* to, EightSums sums) {
        store_any(to, load_any<EightSums>(to) + sums);
    }

    uint8_t* tables_;
    uint16_t* shorts_;
    int64_t count_;
    int32_t* sums_;
    int64_t part_step_;
    int64_t pairs_ = 0;
};

}  // namespace
