#include "xor.h"

#ifdef WSFRAME_X86_64
#include <emmintrin.h>

#define NAME xor_sse2
#define FEATURES "sse2"
#define VECTOR __m128i
#define LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define STORE(p, v) _mm_storeu_si128((__m128i *)(p), v)
#define XOR _mm_xor_si128
#define OR _mm_or_si128
#define SPLAT(key) _mm_set1_epi32((int)(key))
#define ANY_HIGH(v) (_mm_movemask_epi8(v) != 0)
#define SHORTER xor_portable
#include "xor_loop.h"
#endif
