/* SHA-1 with the SHA instructions of arm64: four rounds per instruction. */
#include "sha1.h"

#ifdef WSFRAME_ARM_SHA
#include <arm_neon.h>

#define SCHEDULE(w0, w1, w2, w3) w0 = vsha1su1q_u32(vsha1su0q_u32(w0, w1, w2), w3)

#define ROUNDS(instruction, w, constant)                                   \
    do {                                                                   \
        uint32_t next_e = vsha1h_u32(vgetq_lane_u32(abcd, 0));             \
        abcd = instruction(abcd, e, vaddq_u32(w, vdupq_n_u32(constant)));  \
        e = next_e;                                                        \
    } while (0)

void sha1_arm(uint32_t state[5], const unsigned char block[64])
{
    uint32x4_t abcd = vld1q_u32(state), w[4];
    const uint32x4_t abcd_before = abcd;
    uint32_t e = state[4];

    for (int i = 0; i < 4; i++)
        w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * i)));

    for (int i = 0; i < 20; i++) {
        if (i >= 4)
            SCHEDULE(w[i & 3], w[(i + 1) & 3], w[(i + 2) & 3], w[(i + 3) & 3]);
        if (i < 5)
            ROUNDS(vsha1cq_u32, w[i & 3], 0x5a827999);
        else if (i < 10)
            ROUNDS(vsha1pq_u32, w[i & 3], 0x6ed9eba1);
        else if (i < 15)
            ROUNDS(vsha1mq_u32, w[i & 3], 0x8f1bbcdc);
        else
            ROUNDS(vsha1pq_u32, w[i & 3], 0xca62c1d6);
    }
    vst1q_u32(state, vaddq_u32(abcd, abcd_before));
    state[4] += e;
}
#endif
