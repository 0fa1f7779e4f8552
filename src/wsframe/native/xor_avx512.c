#include "xor.h"

#ifdef WSFRAME_X86_64
#include <immintrin.h>

/* Fewer bytes than a vector: lanes outside the mask are neither read nor written. */
TARGET("avx512f,avx512bw")
static inline int one_masked_vector(unsigned char *dst, const unsigned char *src, size_t size, uint32_t key)
{
    __mmask64 lanes = ((__mmask64)1 << size) - 1;
    __m512i v = _mm512_maskz_loadu_epi8(lanes, src);
    v = _mm512_xor_si512(v, _mm512_set1_epi32((int)key));
    _mm512_mask_storeu_epi8(dst, lanes, v);
    return (_mm512_movepi8_mask(v) & lanes) != 0;
}

#define PREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_NTA)
#define NAME xor_avx512
#define FEATURES "avx512f,avx512bw"
#define VECTOR __m512i
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define XOR _mm512_xor_si512
#define OR _mm512_or_si512
#define SPLAT(key) _mm512_set1_epi32((int)(key))
#define ANY_HIGH(v) (_mm512_movepi8_mask(v) != 0)
#define SHORTER one_masked_vector
#include "xor_loop.h"
#endif
