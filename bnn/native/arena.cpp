#include "arena.h"

#include <algorithm>
#include <cstdint>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace bnn {

namespace {

constexpr size_t kReserved = sizeof(void*) == 8 ? size_t{1} << 40 : size_t{1} << 29;  // addresses, which cost nothing
constexpr size_t kHugePage = size_t{1} << 21;

size_t page_bytes() {
#ifdef __linux__
    static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
#else
    return 1;
#endif
}

}  // namespace

Arena& Arena::of_process() {
    static Arena* const arena = new Arena;
    return *arena;
}

Arena::Arena() {
#ifdef __linux__
    rlimit addresses;
    if (getrlimit(RLIMIT_AS, &addresses) != 0 || addresses.rlim_cur != RLIM_INFINITY) return;
    void* const range = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) return;
    const auto first = (reinterpret_cast<uintptr_t>(range) + kHugePage - 1) / kHugePage * kHugePage;
    begin_ = reinterpret_cast<char*>(first);
    madvise(begin_, kReserved - kHugePage, MADV_HUGEPAGE);  // a wish: pages that are cleared, and found, 2 MiB at a time
#endif
}

void* Arena::take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t size = (bytes + page_bytes() - 1) / page_bytes() * page_bytes();
    size_t at = 0;
    for (const auto& [begin, length] : used_) {
        if (begin - at >= size) break;
        at = begin + length;
    }
    make_writable(at + size);
    used_[at] = size;
    held_ = std::max(held_, at + size);
    return begin_ + at;
}

void Arena::give_back(void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_.erase(static_cast<size_t>(static_cast<char*>(memory) - begin_));
}

void Arena::make_writable([[maybe_unused]] size_t end) {
#ifdef __linux__
    if (end <= writable_) return;
    if (end > kReserved - kHugePage || mprotect(begin_ + writable_, end - writable_, PROT_READ | PROT_WRITE) != 0) {
        throw std::bad_alloc();
    }
    writable_ = end;
#endif
}

void Arena::trim() {
#ifdef __linux__
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t at = 0;
    for (const auto& [begin, length] : used_) {
        if (begin > at) madvise(begin_ + at, begin - at, MADV_DONTNEED);
        at = begin + length;
    }
    if (writable_ > at) {
        madvise(begin_ + at, writable_ - at, MADV_DONTNEED);
        mprotect(begin_ + at, writable_ - at, PROT_NONE);
    }
    writable_ = held_ = at;
#endif
}

size_t Arena::held() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return held_;
}

}  // namespace bnn
