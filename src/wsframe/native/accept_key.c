#include "accept_key.h"
#include "cpu.h"
#include "sha1.h"

#include <string.h>

static sha1_function *sha1_block = sha1_portable;

void accept_key_choose(void)
{
#if defined(__x86_64__) || defined(_M_X64)
    if (cpu_has_sha())
        sha1_block = sha1_x86;
#elif defined(WSFRAME_ARM_SHA)
    sha1_block = sha1_arm;
#endif
}

static void base64(char *out, const unsigned char *in, int groups)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (; groups > 0; groups--, in += 3, out += 4) {
        unsigned int bits = (unsigned int)in[0] << 16 | (unsigned int)in[1] << 8 | in[2];
        out[0] = alphabet[bits >> 18];
        out[1] = alphabet[bits >> 12 & 63];
        out[2] = alphabet[bits >> 6 & 63];
        out[3] = alphabet[bits & 63];
    }
}

void accept_key_compute(char accept[ACCEPT_SIZE], const char key[KEY_SIZE])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char blocks[128] = {0}, digest[21] = {0};

    /* The message of 60 bytes, the end mark, zeros, and the length in bits (480). */
    memcpy(blocks, key, KEY_SIZE);
    memcpy(blocks + KEY_SIZE, guid, 36);
    blocks[60] = 0x80;
    blocks[126] = 480 >> 8;
    blocks[127] = 480 & 0xff;
    sha1_block(state, blocks);
    sha1_block(state, blocks + 64);

    for (int i = 0; i < 20; i++)
        digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
    base64(accept, digest, 7);
    accept[ACCEPT_SIZE - 1] = '='; /* 20 bytes are six groups of three bytes and one group of two */
}
