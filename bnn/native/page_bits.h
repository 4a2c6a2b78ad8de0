// A bit for each of many pages, which are looked at and set 64 at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace bnn {

class PageBits {
   public:
    size_t size() const { return size_; }
    bool operator[](size_t at) const { return words_[at / 64] >> at % 64 & 1; }

    // Those beyond are clear.
    void resize(size_t size) {
        if (size < size_) set(size, size_, false);
        words_.resize((size + 63) / 64);
        size_ = size;
    }

    void set(size_t first, size_t end, bool value) {
        for_words(first, end, [&](size_t word, uint64_t mask) {
            value ? words_[word] |= mask : words_[word] &= ~mask;
            return true;
        });
    }

    size_t count(size_t first, size_t end) const {
        size_t count = 0;
        for_words(first, end, [&](size_t word, uint64_t mask) {
            count += static_cast<size_t>(__builtin_popcountll(words_[word] & mask));
            return true;
        });
        return count;
    }

    // The end, `end` at most, of those from `first` on that are as that one is.
    size_t run_end(size_t first, size_t end) const {
        const uint64_t others = (*this)[first] ? ~uint64_t{0} : 0;
        size_t found = end;
        for_words(first, end, [&](size_t word, uint64_t mask) {
            const uint64_t differing = (words_[word] ^ others) & mask;
            if (differing) found = word * 64 + static_cast<size_t>(__builtin_ctzll(differing));
            return differing == 0;
        });
        return found;
    }

    // The beginning, `first` at least, of those up to `end` that are as the last of them is.
    size_t run_begin(size_t first, size_t end) const {
        const bool value = (*this)[end - 1];
        while (end > first && (*this)[end - 1] == value) {
            const bool whole = end % 64 == 0 && end - first >= 64 && words_[end / 64 - 1] == (value ? ~uint64_t{0} : 0);
            end -= whole ? 64 : 1;
        }
        return end;
    }

   private:
    // Calls visit(word, mask) for the words that hold [first, end), as long as it returns true.
    template <class Visit>
    static void for_words(size_t first, size_t end, const Visit& visit) {
        for (size_t at = first; at < end; at = (at / 64 + 1) * 64) {
            const size_t in_word = std::min<size_t>(end - at, 64 - at % 64);
            if (!visit(at / 64, ~uint64_t{0} >> (64 - in_word) << at % 64)) return;
        }
    }

    std::vector<uint64_t> words_;
    size_t size_ = 0;
};

}  // namespace bnn
