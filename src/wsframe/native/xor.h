/* The one loop over payload bytes, for masking, copying and the ASCII test.

   It computes dst[i] = src[i] ^ key[i % 4]; dst may be src. It returns 0 if every byte of dst is
   ASCII. The key is four bytes in memory order, so the code is the same for both byte orders. */
#ifndef WSFRAME_XOR_H
#define WSFRAME_XOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int xor_function(unsigned char *dst, const unsigned char *src, size_t size, uint32_t key);

/* The fastest loop that this CPU supports, and its name; set by xor_choose() at import. */
extern xor_function *xor_bytes;
extern const char *xor_instruction_set;
void xor_choose(void);

xor_function xor_portable;

#if defined(__x86_64__) || defined(_M_X64)
#define WSFRAME_X86_64
xor_function xor_sse2, xor_avx2, xor_avx512;
#elif defined(__aarch64__) || defined(_M_ARM64)
#define WSFRAME_ARM64
xor_function xor_neon;
#endif

/* GCC and Clang require an attribute on functions that use an instruction set; MSVC does not. */
#if defined(__GNUC__)
#define TARGET(features) __attribute__((target(features)))
#else
#define TARGET(features)
#endif

static inline uint32_t xor_load_key(const unsigned char *key)
{
    uint32_t word;
    memcpy(&word, key, 4);
    return word;
}

/* The key, rotated for a chunk that begins `offset` bytes into the payload. */
static inline uint32_t xor_rotate_key(uint32_t key, size_t offset)
{
    unsigned char twice[8];
    if ((offset & 3) == 0)
        return key;
    memcpy(twice, &key, 4);
    memcpy(twice + 4, &key, 4);
    return xor_load_key(twice + (offset & 3));
}

#endif
