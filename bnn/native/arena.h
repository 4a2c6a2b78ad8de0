// Memory of large results: one range of addresses, of which each result takes the lowest free part that holds it. So what
// one has freed serves others of any size, and the system rarely clears its pages again. Of the pages that are free, it gets
// back so many that those it has given are no more than were ever in use at once.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>

#include "page_bits.h"

namespace bnn {

class Arena {
   public:
    // That of the process, which is never destroyed: results may outlive all else.
    static Arena& of_process();

    // Whether there is one: on Linux, where the system does not limit the process's addresses.
    bool is_there() const { return begin_ != nullptr; }
    // Whole pages, not cleared. Throws std::bad_alloc.
    void* take(size_t bytes);
    void give_back(void* memory);
    // Free pages that the system has given already, for as long as a kernel runs, or null where there are not so many in a
    // row. They do not count as in use: a result that comes in between takes others.
    void* borrow(size_t bytes);
    void return_borrowed(void* memory);
    // Lets the system have all that is free, and forgets how much was in use.
    void trim();
    // Bytes of pages that the system has given, once they are written to.
    size_t held() const;

   private:
    Arena();
    size_t lowest(size_t pages) const;
    size_t page_of(const void* memory) const;
    bool hold(size_t first, size_t end);
    void release(size_t pages);

    // In pages, from the beginning on.
    mutable std::mutex mutex_;
    char* begin_ = nullptr;
    std::map<size_t, size_t> used_;  // sizes of parts by their first page
    PageBits held_;
    size_t pages_ = 0, held_count_ = 0, used_count_ = 0, most_used_ = 0;
};

}  // namespace bnn
