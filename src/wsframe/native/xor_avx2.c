#include "xor.h"

#ifdef WSFRAME_X86_64
#include <immintrin.h>

#define NAME xor_avx2
#define FEATURES "avx2"
#define VECTOR __m256i
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define XOR _mm256_xor_si256
#define OR _mm256_or_si256
#define SPLAT(key) _mm256_set1_epi32((int)(key))
#define ANY_HIGH(v) (_mm256_movemask_epi8(v) != 0)
#define SHORTER xor_sse2
#include "xor_loop.h"
#endif
