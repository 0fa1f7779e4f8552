/* The body of one xor_function, for the vector type that the including file defines.

   The macros are NAME, FEATURES, VECTOR, LOAD, STORE, XOR, OR, SPLAT, ANY_HIGH and SHORTER (for less
   than one vector). PREFETCH is optional. Prefetching is faster up to PREFETCH_UP_TO; for data that
   exceeds a core's own caches it is up to 40 % slower (Zen 4).

   The first and the last vector overlap the loop. So no bytes have to be processed one by one, and
   the stores can be aligned where that is faster. Both vectors are read before the loop, because it
   may overwrite their source, and stored after it. */

TARGET(FEATURES)
int NAME(unsigned char *dst, const unsigned char *src, size_t size, uint32_t key)
{
    enum { STEP = sizeof(VECTOR), ALIGN_FROM = 1024, PREFETCH_UP_TO = 1 << 19 };
    size_t i = 0;

    if (size < STEP)
        return SHORTER(dst, src, size, key);

    VECTOR k = SPLAT(key);
    VECTOR first = XOR(LOAD(src), k);
    VECTOR last = XOR(LOAD(src + size - STEP), SPLAT(xor_rotate_key(key, size)));
    VECTOR high = OR(first, last);

    if (size >= ALIGN_FROM) {
        i = STEP - (uintptr_t)dst % STEP;
        k = SPLAT(xor_rotate_key(key, i));
    }
    for (; size - i > 4 * STEP; i += 4 * STEP) {
#ifdef PREFETCH
        for (int line = 0; line < 4 * (int)STEP && size <= PREFETCH_UP_TO; line += 64)
            PREFETCH(src + i + 1024 + line);
#endif
        VECTOR a = XOR(LOAD(src + i), k);
        VECTOR b = XOR(LOAD(src + i + STEP), k);
        VECTOR c = XOR(LOAD(src + i + 2 * STEP), k);
        VECTOR d = XOR(LOAD(src + i + 3 * STEP), k);
        STORE(dst + i, a);
        STORE(dst + i + STEP, b);
        STORE(dst + i + 2 * STEP, c);
        STORE(dst + i + 3 * STEP, d);
        high = OR(high, OR(OR(a, b), OR(c, d)));
    }
    for (; size - i > STEP; i += STEP) {
        VECTOR a = XOR(LOAD(src + i), k);
        STORE(dst + i, a);
        high = OR(high, a);
    }
    STORE(dst, first);
    STORE(dst + size - STEP, last);
    return ANY_HIGH(high);
}
