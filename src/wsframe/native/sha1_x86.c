/* SHA-1 with the SHA instructions of x86: four rounds per instruction. */
#include "sha1.h"
#include "xor.h" /* TARGET */

#ifdef WSFRAME_X86_64
#include <immintrin.h>

/* Rounds 4n to 4n+3 use `e` and store `a` in `next_e`, which is `e` in the four rounds after.
   SCHEDULE computes the words of rounds 4n+16 to 4n+19. */
#define ROUNDS(e, next_e, w, constant)          \
    e = _mm_sha1nexte_epu32(e, w);              \
    next_e = abcd;                              \
    abcd = _mm_sha1rnds4_epu32(abcd, e, constant)

#define SCHEDULE(w0, w1, w2, w3) \
    w0 = _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32(w0, w1), w2), w3)

TARGET("sha,sse4.1,ssse3")
void sha1_x86(uint32_t state[5], const unsigned char block[64])
{
    const __m128i big_endian = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
    const __m128i *words = (const __m128i *)block;
    __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0x1b);
    __m128i e0 = _mm_set_epi32((int)state[4], 0, 0, 0), e1;
    const __m128i abcd_before = abcd, e_before = e0;

    __m128i w0 = _mm_shuffle_epi8(_mm_loadu_si128(words), big_endian);
    __m128i w1 = _mm_shuffle_epi8(_mm_loadu_si128(words + 1), big_endian);
    __m128i w2 = _mm_shuffle_epi8(_mm_loadu_si128(words + 2), big_endian);
    __m128i w3 = _mm_shuffle_epi8(_mm_loadu_si128(words + 3), big_endian);

    e0 = _mm_add_epi32(e0, w0); /* the first four rounds use e unrotated */
    e1 = abcd;
    abcd = _mm_sha1rnds4_epu32(abcd, e0, 0);
    ROUNDS(e1, e0, w1, 0);
    ROUNDS(e0, e1, w2, 0);
    ROUNDS(e1, e0, w3, 0);
    SCHEDULE(w0, w1, w2, w3);
    ROUNDS(e0, e1, w0, 0);

    SCHEDULE(w1, w2, w3, w0);
    ROUNDS(e1, e0, w1, 1);
    SCHEDULE(w2, w3, w0, w1);
    ROUNDS(e0, e1, w2, 1);
    SCHEDULE(w3, w0, w1, w2);
    ROUNDS(e1, e0, w3, 1);
    SCHEDULE(w0, w1, w2, w3);
    ROUNDS(e0, e1, w0, 1);
    SCHEDULE(w1, w2, w3, w0);
    ROUNDS(e1, e0, w1, 1);

    SCHEDULE(w2, w3, w0, w1);
    ROUNDS(e0, e1, w2, 2);
    SCHEDULE(w3, w0, w1, w2);
    ROUNDS(e1, e0, w3, 2);
    SCHEDULE(w0, w1, w2, w3);
    ROUNDS(e0, e1, w0, 2);
    SCHEDULE(w1, w2, w3, w0);
    ROUNDS(e1, e0, w1, 2);
    SCHEDULE(w2, w3, w0, w1);
    ROUNDS(e0, e1, w2, 2);

    SCHEDULE(w3, w0, w1, w2);
    ROUNDS(e1, e0, w3, 3);
    SCHEDULE(w0, w1, w2, w3);
    ROUNDS(e0, e1, w0, 3);
    SCHEDULE(w1, w2, w3, w0);
    ROUNDS(e1, e0, w1, 3);
    SCHEDULE(w2, w3, w0, w1);
    ROUNDS(e0, e1, w2, 3);
    SCHEDULE(w3, w0, w1, w2);
    ROUNDS(e1, e0, w3, 3);

    e0 = _mm_sha1nexte_epu32(e0, e_before);
    abcd = _mm_add_epi32(abcd, abcd_before);
    _mm_storeu_si128((__m128i *)state, _mm_shuffle_epi32(abcd, 0x1b));
    state[4] = (uint32_t)_mm_extract_epi32(e0, 3);
}
#endif
