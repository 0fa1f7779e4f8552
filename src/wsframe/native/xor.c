/* Selection of the fastest loop for this CPU. */
#include "xor.h"
#include "cpu.h"

xor_function *xor_bytes = xor_portable;
const char *xor_instruction_set = "portable";

static void choose(xor_function *function, const char *name)
{
    xor_bytes = function;
    xor_instruction_set = name;
}

void xor_choose(void)
{
#if defined(WSFRAME_X86_64)
    choose(xor_sse2, "SSE2");
    if (cpu_has_avx2())
        choose(xor_avx2, "AVX2");
    if (cpu_has_avx512bw())
        choose(xor_avx512, "AVX-512");
#elif defined(WSFRAME_ARM64)
    choose(xor_neon, "NEON");
#endif
}
