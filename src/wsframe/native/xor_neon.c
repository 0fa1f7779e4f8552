#include "xor.h"

#ifdef WSFRAME_ARM64
#include <arm_neon.h>

#define NAME xor_neon
#undef TARGET
#define TARGET(features) /* every arm64 CPU has NEON */
#define VECTOR uint8x16_t
#define LOAD vld1q_u8
#define STORE vst1q_u8
#define XOR veorq_u8
#define OR vorrq_u8
#define SPLAT(key) vreinterpretq_u8_u32(vdupq_n_u32(key))
#define ANY_HIGH(v) (vmaxvq_u8(v) >= 0x80)
#define SHORTER xor_portable
#include "xor_loop.h"
#endif
