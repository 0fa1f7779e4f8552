/* Detection of the instruction sets that this CPU and its operating system support. */
#ifndef WSFRAME_CPU_H
#define WSFRAME_CPU_H

#if defined(__x86_64__) || defined(_M_X64)

#if defined(_MSC_VER)
#include <intrin.h>
static inline void cpu_id(int out[4], int leaf) { __cpuidex(out, leaf, 0); }
static inline unsigned long long cpu_saved_state(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static inline void cpu_id(int out[4], int leaf)
{
    unsigned int *r = (unsigned int *)out;
    if (!__get_cpuid_count((unsigned int)leaf, 0, r, r + 1, r + 2, r + 3))
        r[0] = r[1] = r[2] = r[3] = 0;
}
static inline unsigned long long cpu_saved_state(void)
{
    unsigned int low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (unsigned long long)high << 32 | low;
}
#endif

/* True if the operating system saves the registers of this state mask (6: AVX, 0xe6: AVX-512). */
static inline int cpu_saves(unsigned long long mask)
{
    int r[4];
    cpu_id(r, 1);
    return (r[2] >> 27 & 1) && (cpu_saved_state() & mask) == mask;
}

static inline int cpu_has_avx2(void)
{
    int r[4];
    cpu_id(r, 7);
    return (r[1] >> 5 & 1) && cpu_saves(0x6);
}

static inline int cpu_has_avx512bw(void)
{
    int r[4];
    cpu_id(r, 7);
    return (r[1] >> 16 & 1) && (r[1] >> 30 & 1) && cpu_saves(0xe6);
}

static inline int cpu_has_sha(void)
{
    int r[4], s[4];
    cpu_id(r, 7);
    cpu_id(s, 1);
    return (r[1] >> 29 & 1) && (s[2] >> 19 & 1) && (s[2] >> 9 & 1); /* SHA, SSE4.1, SSSE3 */
}

#endif
#endif
