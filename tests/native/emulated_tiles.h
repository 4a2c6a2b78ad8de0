// The tile instructions of AMX in plain C++, for the kernels `amx` to run on a processor with AVX-512 that has no tiles; to be
// included ahead of every file (-include). What the instructions refuse or leave undefined ends the process: tiles that have
// no shape, and sums of other shapes than those of the factors.
#pragma once

#include <immintrin.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace emulated {

constexpr int kTiles = 8, kMostRows = 16, kMostBytes = 64;

// What ldtilecfg reads.
struct Configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(Configuration) == 64);

inline thread_local Configuration shape = {};
inline thread_local uint8_t tile[kTiles][kMostRows][kMostBytes];

inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "emulated tiles: %s\n", what);
    std::abort();
}

inline void load_configuration(const void* from) {
    std::memcpy(&shape, from, sizeof shape);
    require(shape.palette == 1 && shape.start_row == 0, "a palette that is not 1, or a start within a tile");
    for (int t = 0; t < kTiles; ++t) {
        require(shape.rows[t] <= kMostRows && shape.row_bytes[t] <= kMostBytes, "a tile of more than 16 rows of 64 bytes");
    }
    std::memset(tile, 0, sizeof tile);
}

inline void require_shape(int t) { require(shape.palette == 1 && shape.rows[t] && shape.row_bytes[t], "a tile without a shape"); }

inline void load(int t, const void* from, int64_t stride) {
    require_shape(t);
    for (int row = 0; row < shape.rows[t]; ++row) {
        std::memcpy(tile[t][row], static_cast<const uint8_t*>(from) + row * stride, shape.row_bytes[t]);
    }
}

inline void store(int t, void* to, int64_t stride) {
    require_shape(t);
    for (int row = 0; row < shape.rows[t]; ++row) {
        std::memcpy(static_cast<uint8_t*>(to) + row * stride, tile[t][row], shape.row_bytes[t]);
    }
}

// sums[m][n] += a[m][4 k + i] b[k][4 n + i] over k and i, of unsigned a and signed b.
inline void add_products(int sums, int a, int b) {
    for (const int t : {sums, a, b}) require_shape(t);
    require(shape.rows[sums] == shape.rows[a] && shape.row_bytes[sums] == shape.row_bytes[b] &&
                shape.row_bytes[a] == 4 * shape.rows[b],
            "factors and sums that do not fit each other");
    for (int m = 0; m < shape.rows[a]; ++m) {
        int32_t of_row[kMostBytes / 4];
        std::memcpy(of_row, tile[sums][m], sizeof of_row);
        for (int k = 0; k < shape.rows[b]; ++k) {
            for (int n = 0; n < shape.row_bytes[b] / 4; ++n) {
                for (int i = 0; i < 4; ++i) {
                    of_row[n] += tile[a][m][4 * k + i] * static_cast<int8_t>(tile[b][k][4 * n + i]);
                }
            }
        }
        std::memcpy(tile[sums][m], of_row, sizeof of_row);
    }
}

}  // namespace emulated

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig(from) emulated::load_configuration(from)
#define _tile_release() (emulated::shape = {})
#define _tile_loadd(t, from, stride) emulated::load(t, from, stride)
#define _tile_stored(t, to, stride) emulated::store(t, to, stride)
#define _tile_dpbusd(sums, a, b) emulated::add_products(sums, a, b)

// The processor has tiles, and the system permits them.
#define __builtin_cpu_supports(what) (!std::strncmp(what, "amx", 3) || __builtin_cpu_supports(what))
#define syscall(...) 0L
