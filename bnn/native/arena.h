// Memory of large results: one range of addresses, of which each result takes the lowest free part that holds it. So what
// one has freed serves others of any size, and the system does not clear its pages again.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>

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
    // Lets the system have what no result holds.
    void trim();
    // Bytes up to the end of the highest part that has been taken since the last trim.
    size_t held() const;

   private:
    Arena();
    void make_writable(size_t end);

    mutable std::mutex mutex_;
    char* begin_ = nullptr;
    size_t writable_ = 0, held_ = 0;
    std::map<size_t, size_t> used_;  // sizes of parts by their distance from the beginning
};

}  // namespace bnn
