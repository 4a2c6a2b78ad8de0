// Sums of rows of bytes by signs, exact, by the method of the Four Russians (Arlazarov, Dinic, Kronrod and Faradzhev, 1970):
// of four rows at a time the sums under each of 16 choices of signs are formed once, and looked up by four bits. An addition
// then stands for four products of as many columns as a vector has shorts.
//
// A block has kTableRows rows, of up to kTableColumns columns, and a word of signs for each sum: a set bit takes its row as it
// is, a clear one its opposite.
#pragma once

#include "transpose.h"
#include "vector.h"

namespace {

constexpr int64_t kTableRows = 32;
constexpr int64_t kTableColumns = 64;
constexpr int64_t kPartColumns = 32;  // whose sums in int32 lie side by side
constexpr int64_t kQuads = kTableRows / 4;
constexpr int64_t kMostBlocks = 7;  // whose sums a short holds, of any bytes

#ifdef BNN_USE_AVX2
constexpr int kShortsBytes = 32;
#else
constexpr int kShortsBytes = 16;
#endif

// By value: of an array that is copied to, GCC keeps a copy in memory.
template <class Any>
inline Any load_any(const void* from) {
    Any any;
    std::memcpy(&any, from, sizeof any);
    return any;
}
template <class Any>
inline void store_any(void* to, Any any) {
    std::memcpy(to, &any, sizeof any);
}

// Rows of tables of shorts, that hold the sums of any bytes.
template <int columns>
struct ShortRow {
    static constexpr int kBytes = 2 * columns < kShortsBytes ? 2 * columns : kShortsBytes;
    static constexpr int kEach = kBytes / 2, kVectors = columns / kEach;  // columns of a vector, vectors of a row
    typedef int16_t Element;
    typedef int16_t Vector __attribute__((vector_size(kBytes)));
    typedef int8_t Bytes __attribute__((vector_size(kBytes / 2)));
    static constexpr Element kOffset = 0;  // of each sum
};

// Of 4 * quads rows of columns, `row_step` bytes apart, to tables[quads][16][length], of which columns are filled.
template <class Row>
[[gnu::noinline]] void make_tables(const int8_t* rows, int64_t row_step, int64_t quads, typename Row::Element* tables,
                                   int64_t length = Row::kVectors * Row::kEach) {
    using Vector = typename Row::Vector;
    for (int64_t quad = 0; quad < quads; ++quad, rows += 4 * row_step, tables += 16 * length) {
#pragma GCC unroll 8
        for (int v = 0; v < Row::kVectors; ++v) {
            Vector twice[4], sums[16];
            sums[0] = Vector{} + Row::kOffset;
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const int8_t* from = rows + i * row_step + v * Row::kEach;
                const Vector row = __builtin_convertvector(load_any<typename Row::Bytes>(from), Vector);
                sums[0] -= row;
                twice[i] = row + row;
            }
#pragma GCC unroll 16
            for (int choice = 1; choice < 16; ++choice) {
                const int last = choice >= 8 ? 3 : choice >= 4 ? 2 : choice >= 2 ? 1 : 0;
                sums[choice] = sums[choice - (1 << last)] + twice[last];
            }
#pragma GCC unroll 16
            for (int choice = 0; choice < 16; ++choice) {
                store_any(tables + choice * length + v * Row::kEach, sums[choice]);
            }
        }
    }
}

// Adds to sums[count][columns] what words[count] choose from tables of kQuads quads, or of the first `quads`.
template <int columns, bool all>
[[gnu::noinline]] void add_chosen(const int16_t* tables, int64_t quads, const uint32_t* words, int64_t count,
                                  int16_t* sums) {
    using Row = ShortRow<columns>;
    using Shorts = typename Row::Vector;
    constexpr int kShift = columns == 64 ? 7 : columns == 32 ? 6 : 5;  // a row's bytes
    static_assert(2 * columns == 1 << kShift);
    for (int64_t i = 0; i < count; ++i, sums += columns) {
        Shorts row[Row::kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < Row::kVectors; ++v) row[v] = load_any<Shorts>(sums + v * Row::kEach);
        const uint64_t word = uint64_t{words[i]} << kShift;
#pragma GCC unroll 8
        for (int64_t quad = 0; quad < (all ? kQuads : quads); ++quad) {
            const char* chosen = reinterpret_cast<const char*>(tables + quad * 16 * columns) +
                                 (word >> 4 * quad & 15 << kShift);
#pragma GCC unroll 8
            for (int v = 0; v < Row::kVectors; ++v) row[v] += load_any<Shorts>(chosen + v * sizeof(Shorts));
        }
#pragma GCC unroll 8
        for (int v = 0; v < Row::kVectors; ++v) store_any(sums + v * Row::kEach, row[v]);
    }
}

// The sums of one task in shorts, and of all its blocks in int32: sums[count][kPartColumns], and `part_step` behind them
// those of the next columns.
template <int columns>
class ChosenSums {
   public:
    // `shorts` of count x columns, which are 0, and tables for a block.
    ChosenSums(int16_t* tables, int16_t* shorts, int64_t count, int32_t* sums, int64_t part_step)
        : tables_(tables), shorts_(shorts), count_(count), sums_(sums), part_step_(part_step) {}

    // Of 8 * divide_up(quads, 2) rows of columns, `row_step` bytes apart.
    void add(const int8_t* rows, int64_t row_step, int64_t quads, const uint32_t* words) {
        make_tables<ShortRow<columns>>(rows, row_step, quads, tables_);
        if (quads == kQuads) {
            add_chosen<columns, true>(tables_, quads, words, count_, shorts_);
        } else {
            add_chosen<columns, false>(tables_, quads, words, count_, shorts_);
        }
        if (++blocks_ == kMostBlocks) flush();
    }

    // Adds the shorts to the sums.
    void flush() {
        typedef int16_t Eight __attribute__((vector_size(16)));
        typedef int32_t EightSums __attribute__((vector_size(32)));
        for (int64_t i = 0; blocks_ && i < count_; ++i) {
            for (int64_t column = 0; column < columns; column += 8) {
                int16_t* from = shorts_ + i * columns + column;
                int32_t* to = sums_ + column / kPartColumns * part_step_ + i * kPartColumns + column % kPartColumns;
                store_any(to, load_any<EightSums>(to) + __builtin_convertvector(load_any<Eight>(from), EightSums));
                store_any(from, Eight{});
            }
        }
        blocks_ = 0;
    }

   private:
    int16_t *tables_, *shorts_;
    int64_t count_;
    int32_t* sums_;
    int64_t part_step_;
    int64_t blocks_ = 0;
};

}  // namespace
