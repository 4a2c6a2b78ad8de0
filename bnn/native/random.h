// Random bits that depend on a key and on an element's index alone, not on the order of the work.
#pragma once

#include "common.h"

namespace {

// The hash "lowbias32" of C. Wellons, a bijection of 32-bit words whose every output bit depends on every input bit.
// `Word` is a word or a vector of words.
template <class Word>
inline Word mix(Word word) {
    word = (word ^ word >> 16) * 0x7FEB352Du;
    word = (word ^ word >> 15) * 0x846CA68Bu;
    return word ^ word >> 16;
}

constexpr uint32_t kIndexFactor = 0x9E3779B9;

template <class Word>
inline Word random_bits(uint32_t key, Word index) {
    return mix(index * kIndexFactor ^ key);
}

}  // namespace
