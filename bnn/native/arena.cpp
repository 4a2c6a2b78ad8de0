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
    const size_t pages = bytes / page_bytes() + (bytes % page_bytes() != 0);
    const size_t first = lowest(pages), end = first + pages;
    make_writable(end);
    used_[first] = pages;
    used_count_ += pages;
    most_used_ = std::max(most_used_, used_count_);
    held_.resize(std::max(held_.size(), end));
    held_count_ += std::count(held_.begin() + first, held_.begin() + end, false);
    std::fill(held_.begin() + first, held_.begin() + end, true);
    if (held_count_ > most_used_) release(held_count_ - most_used_);
    return begin_ + first * page_bytes();
}

void Arena::give_back(void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto part = used_.find(static_cast<size_t>(static_cast<char*>(memory) - begin_) / page_bytes());
    used_count_ -= part->second;
    used_.erase(part);
}

size_t Arena::lowest(size_t pages) const {
    size_t at = 0;
    for (const auto& [first, count] : used_) {
        if (first - at >= pages) break;
        at = first + count;
    }
    return at;
}

void Arena::make_writable([[maybe_unused]] size_t end) {
#ifdef __linux__
    if (end <= writable_) return;
    const size_t bytes = (end - writable_) * page_bytes();
    if (end > (kReserved - kHugePage) / page_bytes() ||
        mprotect(begin_ + writable_ * page_bytes(), bytes, PROT_READ | PROT_WRITE) != 0) {
        throw std::bad_alloc();
    }
    writable_ = end;
#endif
}

// The highest of the free ones: a part takes the lowest that it can.
void Arena::release([[maybe_unused]] size_t pages) {
#ifdef __linux__
    size_t end = held_.size();
    for (auto part = used_.rbegin(); pages > 0 && end > 0; ++part) {
        const size_t begin = part == used_.rend() ? 0 : part->first + part->second;
        while (pages > 0 && end > begin) {
            size_t last = end;
            while (last > begin && !held_[last - 1]) --last;
            size_t first = last;
            while (first > begin && held_[first - 1] && last - first < pages) held_[--first] = false;
            if (first < last) madvise(begin_ + first * page_bytes(), (last - first) * page_bytes(), MADV_DONTNEED);
            held_count_ -= last - first;
            pages -= last - first;
            end = first;
        }
        if (part == used_.rend()) break;
        end = part->first;
    }
#endif
}

void Arena::trim() {
#ifdef __linux__
    const std::lock_guard<std::mutex> lock(mutex_);
    release(held_count_);
    const size_t end = used_.empty() ? 0 : used_.rbegin()->first + used_.rbegin()->second;
    if (writable_ > end) mprotect(begin_ + end * page_bytes(), (writable_ - end) * page_bytes(), PROT_NONE);
    writable_ = end;
    held_.resize(end);
    most_used_ = used_count_;
#endif
}

size_t Arena::held() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return held_count_ * page_bytes();
}

}  // namespace bnn
