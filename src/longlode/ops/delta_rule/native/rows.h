/* What the row-wise kernels share: rows of float or bfloat16 in and out of memory, e^x and the sigmoid in float. */
#ifndef LONGLODE_ROWS_H
#define LONGLODE_ROWS_H

#include "rowwise.h"
#include "vector.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

/* GCC 12 takes five instructions for what AVX512 has as one; so below. */
INLINE Floats load_half(const uint16_t *x) {
#if defined(__AVX512F__)
    return (Floats)((Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)x)) << 16);
#else
    return (Floats)(__builtin_convertvector(*(const Halves *)x, Ints) << 16);
#endif
}

/* Rounded to the nearest, ties to even, as torch does; NaN stays NaN. */
INLINE void store_half(uint16_t *x, Floats value) {
    Ints bits = (Ints)value, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
#if defined(__AVX512F__)
    const __mmask16 is_nan = _mm512_cmp_ps_mask((__m512)value, (__m512)value, _CMP_UNORD_Q);
    const __m512i chosen = _mm512_mask_set1_epi32((__m512i)rounded, is_nan, 0x7fc0);
    _mm256_storeu_si256((__m256i_u *)x, _mm512_cvtepi32_epi16(chosen));
#else
    Ints is_nan = value != value;
    rounded = (rounded & ~is_nan) | (is_nan & 0x7fc0);
    *(Halves *)x = __builtin_convertvector(rounded, Halves);
#endif
}

INLINE float half_to_float(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE char *place(const Rows *x, int64_t batch, int64_t row, int64_t column) {
    return (char *)x->data + (batch * x->batch + row * x->row + column) * (x->narrow ? 2 : 4);
}

/* A vector of x, from column `i` of a row at `from`; lanes beyond `count` columns are 0. */
INLINE Floats fetch(const char *from, int64_t narrow, int64_t i, int64_t count) {
    if (i + LANES <= count)
        return narrow ? load_half((const uint16_t *)from + i) : load((const float *)from + i);
    float lanes[LANES] = {0};
    for (int64_t lane = 0; lane < count - i; lane++)
        lanes[lane] = narrow ? half_to_float(((const uint16_t *)from)[i + lane]) : ((const float *)from)[i + lane];
    return load(lanes);
}

INLINE void put(char *to, int64_t narrow, int64_t i, int64_t count, Floats value) {
    if (i + LANES <= count) {
        if (narrow)
            store_half((uint16_t *)to + i, value);
        else
            store((float *)to + i, value);
        return;
    }
    float lanes[LANES];
    uint16_t halves[LANES];
    store(lanes, value);
    store_half(halves, value);
    if (narrow)
        memcpy((uint16_t *)to + i, halves, (size_t)(count - i) * sizeof *halves);
    else
        memcpy((float *)to + i, lanes, (size_t)(count - i) * sizeof *lanes);
}

/* The `count` of fetch and put: rows of whole vectors need no test for the last one, and the loop no call of memcpy,
 * around which a compiler keeps nothing in vector registers. */
INLINE int64_t limit(int whole, int64_t i, int64_t count) { return whole ? i + LANES : count; }

INLINE void fetch_row(const char *from, int64_t narrow, int64_t count, int whole, float *to) {
    for (int64_t i = 0; i < count; i += LANES) store(to + i, fetch(from, narrow, i, limit(whole, i, count)));
}

/* The larger of each two numbers; `other` where x is NaN. */
INLINE Floats larger(Floats x, Floats other) {
#if defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)x, (__m512)other);
#else
    Ints above = x > other;
    return (Floats)(((Ints)x & above) | ((Ints)other & ~above));
#endif
}

/* x, or the nearer end of the range if it is outside; NaN for NaN. */
INLINE Floats between(float least, float most, Floats x) {
#if defined(__AVX512F__)
    /* Both instructions return their second operand where either is NaN. */
    return (Floats)_mm512_min_ps((__m512)all(most), _mm512_max_ps((__m512)all(least), (__m512)x));
#else
    Ints low = x < least, high = x > most;
    x = (Floats)(((Ints)x & ~low) | ((Ints)all(least) & low));
    return (Floats)(((Ints)x & ~high) | ((Ints)all(most) & high));
#endif
}

/* e^x to about 1e-7 relative; e^-87 and below as e^-87 (1.6e-38), e^88 and above as e^88, NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its Taylor series to r^7. */
INLINE Floats exponential_float(Floats x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
    x = between(-87.0f, 88.0f, x);
    Floats shifted = x * 1.44269504f + shift;
    Floats n = shifted - shift;
    Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    static const float inverse_factorials[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
    Floats sum = all(inverse_factorials[0]);
    UNROLL for (int i = 1; i < 8; i++) sum = sum * r + inverse_factorials[i];
    /* The low bits of `shifted` are n; n + 127 in the exponent's place is 2^n. Times, not plus: a NaN must stay one. */
    return sum * (Floats)(((Ints)shifted + 127) << 23);
}

INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential_float(-x)); }

#endif
