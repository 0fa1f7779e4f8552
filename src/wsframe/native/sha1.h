/* SHA-1's compression function (RFC 3174): update the state with one block of 64 bytes. */
#ifndef WSFRAME_SHA1_H
#define WSFRAME_SHA1_H

#include <stdint.h>

typedef void sha1_function(uint32_t state[5], const unsigned char block[64]);

sha1_function sha1_portable;

#if defined(__x86_64__) || defined(_M_X64)
sha1_function sha1_x86;
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRYPTO)
#define WSFRAME_ARM_SHA
sha1_function sha1_arm;
#endif

#endif
