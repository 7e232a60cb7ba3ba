// Which kernels this processor can run.
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace squish {
namespace {

struct Found {
    const Kernels* list[8] = {};
    int count = 0;
    void add(bool can, const Kernels& kernels) {
        if (can) list[count++] = &kernels;
    }
};

Found look() {
    Found found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool wide = fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool vnni = fma && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
    found.add(wide && __builtin_cpu_supports("avx512vnni"), avx512vnni);
    found.add(vnni, avxvnni);
    found.add(wide, avx512);
    found.add(fma, avx2);
#elif defined(__aarch64__)
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    found.add((first >> 20 & 1) && (second >> 13 & 1), i8mm);
    found.add(first >> 20 & 1, dotprod);
    found.add(true, neon);
#endif
    found.add(true, portable);
    return found;
}

}  // namespace

const Kernels* const* runnable() {
    static const Found found = look();
    return found.list;
}

}  // namespace squish
