// The extension module bnn._native: the kernels by the name of their instruction set.
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"

#if defined(BNN_BUILD_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(BNN_BUILD_NEON_DOT) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace {

#ifdef BNN_BUILD_AMX
// Asks the kernel, once for the process, to save the tiles' state on a switch of threads.
bool tiles_are_permitted() {
#ifdef __linux__
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}
#endif

#ifdef BNN_BUILD_NEON_DOT
// Whether this CPU has sdot, as Cortex-A55 and A76 do and A53 and A72 do not.
bool has_dot_products() {
#ifdef __linux__
    constexpr unsigned long kDotProducts = 1 << 20;  // HWCAP_ASIMDDP
    return getauxval(AT_HWCAP) & kDotProducts;
#else
    return false;
#endif
}
#endif

// The sets that were built and that this CPU has, best first.
std::vector<std::pair<std::string, const bnn::Kernels*>> available() {
    std::vector<std::pair<std::string, const bnn::Kernels*>> found;
#ifdef BNN_BUILD_AVX512
    if (__builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("gfni")) {
#ifdef BNN_BUILD_AMX
        if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") && tiles_are_permitted()) {
            found.emplace_back("amx", &bnn::amx::kernels);
        }
#endif
        found.emplace_back("avx512", &bnn::avx512::kernels);
    }
#endif
#ifdef BNN_BUILD_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("fma")) {
        found.emplace_back("avx2", &bnn::avx2::kernels);
    }
#endif
#ifdef BNN_BUILD_NEON_DOT
    if (has_dot_products()) found.emplace_back("neon-dot", &bnn::neon_dot::kernels);
#endif
#ifdef BNN_BUILD_NEON
    found.emplace_back("neon", &bnn::neon::kernels);
#endif
    found.emplace_back("generic", &bnn::generic::kernels);
    return found;
}

}  // namespace

const bnn::Kernels& bnn::kernels(const std::string& isa) {
    static const auto found = available();
    for (const auto& [name, table] : found) {
        if (name == isa) return *table;
    }
    throw std::invalid_argument("this CPU or this build has no kernels for " + isa);
}

NB_MODULE(_native, module) {
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const auto& entry : available()) names.push_back(entry.first);
        return names;
    });
    bnn::bind_products(module);
    bnn::bind_norms(module);
    bnn::bind_steps(module);
    bnn::bind_blocks(module);
    bnn::bind_memory(module);
}
