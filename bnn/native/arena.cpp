#include "arena.h"
#include "workspace.h"

#include <algorithm>
#include <cstdint>
#include <new>

#ifdef __linux__
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace bnn {

namespace {

constexpr size_t kHugePage = size_t{1} << 21;

size_t page_bytes() {
#ifdef __linux__
    static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
#else
    return 1;
#endif
}

#ifdef __linux__
// As much as the machine has memory; where addresses have 32 bits, a part of them.
size_t addresses() {
    const auto memory = static_cast<size_t>(sysconf(_SC_PHYS_PAGES));
    return sizeof(void*) == 8 ? memory * page_bytes() : size_t{1} << 29;
}
#endif

}  // namespace

Arena& Arena::of_process() {
    static Arena* const arena = new Arena;
    return *arena;
}

Arena::Arena() {
#ifdef __linux__
    rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return;
    const size_t size = addresses();
    void* const range = mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) return;
    const auto first = (reinterpret_cast<uintptr_t>(range) + kHugePage - 1) / kHugePage * kHugePage;
    begin_ = reinterpret_cast<char*>(first);
    pages_ = size / page_bytes();
    madvise(begin_, size, MADV_HUGEPAGE);  // a wish: pages that are cleared, and found, 2 MiB at a time
    // A copy of the process must not find it locked by a thread that it does not have.
    pthread_atfork([] { of_process().mutex_.lock(); }, [] { of_process().mutex_.unlock(); },
                   [] { of_process().mutex_.unlock(); });
#endif
}

void* Arena::take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t pages = bytes / page_bytes() + (bytes % page_bytes() != 0);
    const size_t first = lowest(pages), end = first + pages;
    if (end > pages_) throw std::bad_alloc();
    used_[first] = pages;
    held_.resize(std::max(held_.size(), end));
    const size_t fresh = pages - held_.count(first, end);
    const size_t most = std::max(most_used_, used_count_ + pages);
    if (held_count_ + fresh > most) release(held_count_ + fresh - most);
    if (!hold(first, end)) {
        used_.erase(first);
        throw std::bad_alloc();
    }
    used_count_ += pages;
    most_used_ = most;
    return begin_ + first * page_bytes();
}

void Arena::give_back(void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto part = used_.find(page_of(memory));
    used_count_ -= part->second;
    used_.erase(part);
}

void* Arena::borrow(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t pages = bytes / page_bytes() + (bytes % page_bytes() != 0);
    if (held_count_ < used_count_ + pages) return nullptr;
    auto part = used_.begin();
    for (size_t begin = 0; begin < held_.size(); ++part) {
        const size_t end = part == used_.end() ? held_.size() : std::min(part->first, held_.size());
        for (size_t first = begin, next; end - first >= pages && first < end; first = next) {
            next = held_.run_end(first, end);
            if (!held_[first] || next - first < pages) continue;
            used_[first] = pages;
            return begin_ + first * page_bytes();
        }
        if (part == used_.end()) break;
        begin = part->first + part->second;
    }
    return nullptr;
}

void Arena::return_borrowed(void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_.erase(page_of(memory));
}

size_t Arena::page_of(const void* memory) const {
    return static_cast<size_t>(static_cast<const char*>(memory) - begin_) / page_bytes();
}

size_t Arena::lowest(size_t pages) const {
    size_t at = 0;
    for (const auto& [first, count] : used_) {
        if (first - at >= pages) break;
        at = first + count;
    }
    return at;
}

// Those from `first` on, as far as they are not held yet. Returns whether the system gives them.
bool Arena::hold([[maybe_unused]] size_t first, [[maybe_unused]] size_t end) {
#ifdef __linux__
    for (size_t next; first < end; first = next) {
        next = held_.run_end(first, end);
        if (held_[first]) continue;
        void* const fresh = begin_ + first * page_bytes();
        if (mprotect(fresh, (next - first) * page_bytes(), PROT_READ | PROT_WRITE) != 0) return false;
        held_.set(first, next, true);
        held_count_ += next - first;
    }
#endif
    return true;
}

// The highest of the free ones: a part takes the lowest that it can. What is not held counts towards no limit.
void Arena::release([[maybe_unused]] size_t pages) {
#ifdef __linux__
    size_t end = held_.size();
    for (auto part = used_.rbegin(); pages > 0 && end > 0; ++part) {
        const size_t begin = part == used_.rend() ? 0 : part->first + part->second;
        while (pages > 0 && end > begin) {
            const size_t last = held_[end - 1] ? end : held_.run_begin(begin, end);
            const size_t run = last > begin ? held_.run_begin(begin, last) : last;
            const size_t first = last - std::min(last - run, pages);
            if (first < last) {
                held_.set(first, last, false);
                madvise(begin_ + first * page_bytes(), (last - first) * page_bytes(), MADV_DONTNEED);
                mprotect(begin_ + first * page_bytes(), (last - first) * page_bytes(), PROT_NONE);
            }
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
    const std::lock_guard<std::mutex> lock(mutex_);
    release(held_count_);
    held_.resize(used_.empty() ? 0 : used_.rbegin()->first + used_.rbegin()->second);
    most_used_ = used_count_;
}

size_t Arena::held() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return held_count_ * page_bytes();
}

void* take_workspace(size_t bytes) { return Arena::of_process().borrow(bytes); }
void give_back_workspace(void* memory) { Arena::of_process().return_borrowed(memory); }

}  // namespace bnn
