/* Random numbers of a step of the preset edge-min: the same as those of bnn/random. Parts begin as those of kernels.c do. */

/*** mix */
/* lowbias32 of C. Wellons. */
static uint32_t mix(uint32_t word) {
    word = (word ^ word >> 16) * 0x7FEB352Du;
    word = (word ^ word >> 15) * 0x846CA68Bu;
    return word ^ word >> 16;
}

/*** random_bits */
static uint32_t random_bits(uint32_t key, uint32_t index) { return mix(index * 0x9E3779B9u ^ key); }

/*** hash_key */
static uint32_t hash_key(uint64_t seed) { return mix((uint32_t)seed ^ mix((uint32_t)(seed >> 32))); }

/*** twister */
/* MT19937 of M. Matsumoto and T. Nishimura, from which torch draws seeds. */
static uint32_t twister_state[624];
static int twister_next = 624;

static void seed_twister(uint32_t seed) {
    uint32_t i;
    twister_state[0] = seed;
    for (i = 1; i < 624; ++i) {
        twister_state[i] = 1812433253u * (twister_state[i - 1] ^ twister_state[i - 1] >> 30) + i;
    }
    twister_next = 624;
}

static uint32_t twister(void) {
    uint32_t word;
    int i;
    if (twister_next == 624) {
        for (i = 0; i < 624; ++i) {
            word = (twister_state[i] & 0x80000000u) | (twister_state[(i + 1) % 624] & 0x7FFFFFFFu);
            twister_state[i] = twister_state[(i + 397) % 624] ^ word >> 1 ^ (word & 1u ? 0x9908B0DFu : 0u);
        }
        twister_next = 0;
    }
    word = twister_state[twister_next++];
    word ^= word >> 11;
    word ^= word << 7 & 0x9D2C5680u;
    word ^= word << 15 & 0xEFC60000u;
    return word ^ word >> 18;
}

/*** draw_key */
static uint32_t draw_key(void) {
    const uint64_t high = twister();
    return hash_key((high << 32 | twister()) & 0x3FFFFFFFFFFFFFFFu);
}

/*** rounding_key */
/* SplitMix64 of (seed, number of the parameter, step). */
static uint32_t rounding_key(uint64_t number) {
    const uint64_t parts[3] = {seed, number, step_number};
    uint64_t state = 0;
    int i;
    for (i = 0; i < 3; ++i) {
        uint64_t z = state + parts[i] + 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        state = z ^ z >> 31;
    }
    return hash_key(state & 0x7FFFFFFFFFFFFFFFu);
}
