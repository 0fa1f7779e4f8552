/* Eight bytes at a time, for any CPU; also used by SSE2 and NEON for less than one vector. */
#include "xor.h"

static int few_bytes(unsigned char *dst, const unsigned char *src, size_t size, uint32_t key)
{
    unsigned char k[4], high = 0;
    memcpy(k, &key, 4);
    for (size_t i = 0; i < size; i++)
        high |= dst[i] = src[i] ^ k[i & 3];
    return high & 0x80;
}

static inline uint64_t load(const unsigned char *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static inline void store(unsigned char *p, uint64_t word)
{
    memcpy(p, &word, 8);
}

#define NAME xor_portable
#undef TARGET
#define TARGET(features)
#define VECTOR uint64_t
#define LOAD load
#define STORE store
#define XOR(a, b) ((a) ^ (b))
#define OR(a, b) ((a) | (b))
#define SPLAT(key) ((uint64_t)(key) << 32 | (key))
#define ANY_HIGH(v) (((v) & UINT64_C(0x8080808080808080)) != 0)
#define SHORTER few_bytes
#include "xor_loop.h"
