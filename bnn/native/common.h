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

#include "workspace.h"

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

// From so many bytes on a buffer lies in the arena, if that has free memory: fresh pages take longer than the work in them.
constexpr int64_t kWorkspaceBytes = 1 << 16;

enum class Contents { kZeros, kAny };

// Memory that is freed with its scope, in equal parts, each on cache lines of its own.
class Buffer {
   public:
    Buffer(int64_t parts, int64_t part_bytes, Contents contents = Contents::kZeros)
        : part_bytes_(round_up(maximum(part_bytes, 1), 64)) {
        const int64_t bytes = parts * part_bytes_;
        borrowed_ = bytes < kWorkspaceBytes ? nullptr : bnn::take_workspace(bytes);
        if (borrowed_) {
            if (contents == Contents::kZeros) std::memset(borrowed_, 0, bytes);
            data_ = static_cast<uint8_t*>(borrowed_);
            return;
        }
        own_ = contents == Contents::kZeros ? std::calloc(bytes + 64, 1) : std::malloc(bytes + 64);
        if (!own_) throw std::bad_alloc();
        data_ = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(own_) + 63) / 64 * 64);
    }
    ~Buffer() {
        if (borrowed_) bnn::give_back_workspace(borrowed_);
        std::free(own_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    template <class T>
    T* part(int64_t index) const {
        return reinterpret_cast<T*>(data_ + index * part_bytes_);
    }

   private:
    int64_t part_bytes_;
    void *borrowed_, *own_ = nullptr;
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
