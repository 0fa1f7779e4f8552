/* Compares all C code that this CPU supports with the definitions, one byte at a time. */
#include "accept_key.h"
#include "cpu.h"
#include "sha1.h"
#include "xor.h"

#include <stdio.h>
#include <stdlib.h>

enum { LONGEST = 2200, ROOM = LONGEST + 256, GUARD = 0x5a };

static const unsigned char key[4] = {0x01, 0x92, 0x03, 0x54};

static void check(int holds, const char *name, const char *what, int size, int offset)
{
    if (!holds) {
        printf("%s: %s, %d bytes at offset %d\n", name, what, size, offset);
        exit(1);
    }
}

static void test_xor(const char *name, xor_function *function, int ascii)
{
    static unsigned char src[ROOM], dst[ROOM], want[ROOM];

    for (int size = 0; size <= LONGEST; size += size < 300 ? 1 : 41) {
        for (int offset = 0; offset < 70; offset += size < 300 ? 1 : 9) {
            int high = 0;
            for (int i = 0; i < size; i++) {
                want[i] = (unsigned char)(rand() & (ascii ? 0x7f : 0xff));
                src[offset + i] = want[i] ^ key[i & 3];
                high |= want[i] & 0x80;
            }
            memset(dst, GUARD, sizeof dst);
            int found = function(dst + offset + 1, src + offset, (size_t)size, xor_load_key(key));
            check(!memcmp(dst + offset + 1, want, (size_t)size), name, "wrong bytes", size, offset);
            check(!found == !high, name, "wrong about ASCII", size, offset);
            check(dst[offset] == GUARD && dst[offset + 1 + size] == GUARD, name,
                  "wrote outside", size, offset);
            function(src + offset, src + offset, (size_t)size, xor_load_key(key));
            check(!memcmp(src + offset, want, (size_t)size), name, "wrong in place", size, offset);
        }
    }
}

/* A single byte outside ASCII is detected at any position. */
static void test_ascii(const char *name, xor_function *function)
{
    static unsigned char src[600], dst[600];
    for (int size = 1; size < 600; size += 7) {
        for (int at = 0; at < size; at++) {
            memset(src, 0, sizeof src);
            src[at] = 0x80;
            check(function(dst, src, (size_t)size, 0), name, "missed a high bit", size, at);
        }
    }
}

static void test_rotation(void)
{
    for (int offset = 0; offset < 9; offset++) {
        uint32_t turned = xor_rotate_key(xor_load_key(key), (size_t)offset);
        unsigned char bytes[4];
        memcpy(bytes, &turned, 4);
        for (int i = 0; i < 4; i++)
            check(bytes[i] == key[(i + offset) & 3], "rotation", "wrong key", 4, offset);
    }
}

/* The digests of the empty message and of "abc" (RFC 3174 section 7.3). */
static void test_sha1(const char *name, sha1_function *function)
{
    static const uint32_t of_abc[5] = {0xa9993e36, 0x4706816a, 0xba3e2571, 0x7850c26c, 0x9cd0d89d};
    static const uint32_t of_nothing[5] = {0xda39a3ee, 0x5e6b4b0d, 0x3255bfef, 0x95601890, 0xafd80709};
    for (int size = 0; size <= 3; size += 3) {
        uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
        unsigned char block[64] = {0};
        memcpy(block, "abc", (size_t)size);
        block[size] = 0x80;
        block[63] = (unsigned char)(8 * size);
        function(state, block);
        check(!memcmp(state, size ? of_abc : of_nothing, 20), name, "wrong digest", size, 0);
    }
    printf("%s\n", name);
}

static void test_all(const char *name, xor_function *function)
{
    test_xor(name, function, 0);
    test_xor(name, function, 1);
    test_ascii(name, function);
    printf("%s\n", name);
}

int main(void)
{
    char accept[ACCEPT_SIZE];

    test_rotation();
    test_all("portable", xor_portable);
    test_sha1("SHA-1 portable", sha1_portable);
#if defined(WSFRAME_X86_64)
    test_all("SSE2", xor_sse2);
    if (cpu_has_avx2())
        test_all("AVX2", xor_avx2);
    if (cpu_has_avx512bw())
        test_all("AVX-512", xor_avx512);
    if (cpu_has_sha())
        test_sha1("SHA-1 x86", sha1_x86);
#elif defined(WSFRAME_ARM64)
    test_all("NEON", xor_neon);
#if defined(WSFRAME_ARM_SHA)
    test_sha1("SHA-1 arm64", sha1_arm);
#endif
#endif
    xor_choose();
    accept_key_choose();
    accept_key_compute(accept, "dGhlIHNhbXBsZSBub25jZQ=="); /* RFC 6455 section 1.3 */
    check(!memcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", ACCEPT_SIZE), "accept key", "wrong", 24, 0);
    printf("chosen: %s\n", xor_instruction_set);
    return 0;
}
