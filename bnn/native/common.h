// Small helpers without the standard library's templates: a template that one translation unit compiles for AVX-512
// could otherwise be the copy that the linker keeps for all of them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

// Reading and writing past a row's end by less than this keeps the copying loops free of special cases.
constexpr int64_t kSlackBytes = 32;

inline int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }
inline int64_t packed_bytes(int64_t bits) { return divide_up(bits, 8); }

inline uint64_t popcount_of_word(uint64_t word) {
    word -= word >> 1 & 0x5555555555555555;
    word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
    return ((word + (word >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101 >> 56;
}

struct Piece {
    void* memory;
    int64_t bytes;
};

// Memory of a thread's buffers that are gone, for its next ones: fresh pages take the system longer than most passes over
// them. The pieces that came last stay.
class SparePieces {
   public:
    SparePieces() = default;
    ~SparePieces() {
        while (count_) drop(0);
    }
    SparePieces(const SparePieces&) = delete;
    SparePieces& operator=(const SparePieces&) = delete;

    // The smallest piece of at least `bytes`, cleared that far, or a new one.
    Piece take(int64_t bytes) {
        int best = -1;
        for (int i = 0; i < count_; ++i) {
            const bool fits = pieces_[i].bytes >= bytes && pieces_[i].bytes / 2 <= bytes;
            if (fits && (best < 0 || pieces_[i].bytes < pieces_[best].bytes)) best = i;
        }
        if (best < 0) return {std::calloc(bytes, 1), bytes};
        const Piece piece = remove(best);
        std::memset(piece.memory, 0, bytes);
        return piece;
    }

    void give(Piece piece) {
        if (piece.bytes < kLeastBytes || piece.bytes > kMostBytes) return std::free(piece.memory);
        while (count_ == kMostPieces || bytes_ + piece.bytes > kMostBytes) drop(0);
        pieces_[count_++] = piece;
        bytes_ += piece.bytes;
    }

   private:
    static constexpr int kMostPieces = 16;
    static constexpr int64_t kLeastBytes = 32 << 10, kMostBytes = 1 << 20;  // smaller ones the C library keeps

    Piece remove(int index) {
        const Piece piece = pieces_[index];
        bytes_ -= piece.bytes;
        --count_;
        for (int i = index; i < count_; ++i) pieces_[i] = pieces_[i + 1];
        return piece;
    }
    void drop(int index) { std::free(remove(index).memory); }

    Piece pieces_[kMostPieces];
    int count_ = 0;
    int64_t bytes_ = 0;
};

inline SparePieces& spare_pieces() {
    static thread_local SparePieces pieces;
    return pieces;
}

// Zeroed memory that is given back with its scope, in equal parts, each on cache lines of its own.
class Buffer {
   public:
    Buffer(int64_t parts, int64_t part_bytes)
        : part_bytes_(round_up(maximum(part_bytes, 1), 64)),
          piece_(spare_pieces().take(parts * part_bytes_ + 64)),
          data_(reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(piece_.memory) + 63) / 64 * 64)) {
        if (!piece_.memory) throw std::bad_alloc();
    }
    ~Buffer() { spare_pieces().give(piece_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    template <class T>
    T* part(int64_t index) const {
        return reinterpret_cast<T*>(data_ + index * part_bytes_);
    }

   private:
    int64_t part_bytes_;
    Piece piece_;
    uint8_t* data_;
};

// Calls task(index, thread) for every index, on up to `threads` threads of OpenMP's pool.
template <class Task>
void parallel_for(int64_t count, [[maybe_unused]] int threads, const Task& task) {
#ifdef _OPENMP
    if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t index = 0; index < count; ++index) task(index, omp_get_thread_num());
        return;
    }
#endif
    for (int64_t index = 0; index < count; ++index) task(index, 0);
}

}  // namespace
