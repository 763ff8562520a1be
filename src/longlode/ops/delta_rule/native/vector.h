/* Vectors of the instruction set this is compiled for, and the few operations that C lacks on them. */
#ifndef LONGLODE_VECTOR_H
#define LONGLODE_VECTOR_H

#include <stdint.h>
#include <string.h>

/* LANES floats a vector.  A product is computed in register tiles of ROWS rows by 2 vectors: with 32 registers 16
 * sums hide the latency of two multiply-add units; with 16 registers 8 sums fit. */
#if defined(__AVX512F__)
#define LANES 16
#define ROWS 8
#elif defined(__AVX2__)
#define LANES 8
#define ROWS 4
#elif defined(__aarch64__)
#define LANES 4
#define ROWS 8
#else
#define LANES 4
#define ROWS 4
#endif
#define HALF (LANES / 2) /* doubles a vector */

#define INLINE static inline __attribute__((always_inline))
/* Not inlined: one copy of each product is enough, and keeps the instruction cache for the loops. */
#define NOINLINE static __attribute__((noinline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float HalfFloats __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(4 * LANES), aligned(8), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef int64_t Longs __attribute__((vector_size(4 * LANES)));

INLINE Floats load(const float *x) { return *(const Floats *)x; }
INLINE void store(float *x, Floats value) { *(Floats *)x = value; }
INLINE Doubles load_doubles(const double *x) { return *(const Doubles *)x; }
INLINE void store_doubles(double *x, Doubles value) { *(Doubles *)x = value; }
INLINE Doubles load_wide(const float *x) { return __builtin_convertvector(*(const HalfFloats *)x, Doubles); }
INLINE void store_narrow(float *x, Doubles value) { *(HalfFloats *)x = __builtin_convertvector(value, HalfFloats); }
INLINE Floats all(float x) { return (Floats){0} + x; }
INLINE Doubles all_doubles(double x) { return (Doubles){0} + x; }

INLINE Ints lane_numbers(void) {
    Ints lanes;
    UNROLL for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    return lanes;
}

/* value where its index first + lane is below `end`, else 0; not a product with 0, which would keep a NaN. */
INLINE Floats keep_below(Floats value, int64_t first, int64_t end) {
    Ints wanted = lane_numbers() < (int32_t)(end - first);
    return (Floats)((Ints)value & wanted);
}

/* e^x to about 1e-15 relative; exactly 0 below -709, infinite above 710, NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its Taylor series to r^13. */
INLINE Doubles exponential(Doubles x) {
    const double shift = 6755399441055744.0; /* 1.5 * 2^52: adding it leaves the rounded integer in the low bits */
    Longs low = x < -709.0, high = x > 710.0;
    x = (Doubles)(((Longs)x & ~low) | ((Longs)all_doubles(-709.0) & low));
    x = (Doubles)(((Longs)x & ~high) | ((Longs)all_doubles(710.0) & high));
    Doubles shifted = x * 1.4426950408889634 + shift;
    Doubles n = shifted - shift;
    Doubles r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    static const double inverse_factorials[] = {
        1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
    Doubles sum = all_doubles(inverse_factorials[0]);
    UNROLL for (int i = 1; i < 14; i++) sum = sum * r + inverse_factorials[i];
    /* The low bits of `shifted` are n; n + 1023 in the exponent's place is 2^n, 0 for n = -1023, infinite for 1024. */
    Longs exponent = ((Longs)shifted + 1023) << 52;
    return sum * (Doubles)exponent;
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t QuadInts __attribute__((vector_size(16)));
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (QuadInts){i, j, k, l})
#endif

/* Halves are added to halves, in registers: by way of memory each step would wait for the store before it. */
INLINE float sum_lanes(Floats x) {
    Quad quads[LANES / 4];
    UNROLL for (int i = 0; i < LANES / 4; i++) quads[i] = ((const Quad *)&x)[i];
    UNROLL for (int width = LANES / 8; width; width /= 2)
        UNROLL for (int i = 0; i < width; i++) quads[i] += quads[i + width];
    quads[0] += SHUFFLE(quads[0], quads[0], 2, 3, 2, 3);
    return quads[0][0] + quads[0][1];
}

/* to [columns, rows] = from [rows, columns] transposed; both counts are multiples of 4. */
NOINLINE void transpose(int64_t rows, int64_t columns, const float *from, int64_t from_step, float *to,
                        int64_t to_step) {
    for (int64_t column = 0; column < columns; column += 4)
        for (int64_t row = 0; row < rows; row += 4) {
            const float *x = from + row * from_step + column;
            Quad a = *(const Quad *)x, b = *(const Quad *)(x + from_step);
            Quad c = *(const Quad *)(x + 2 * from_step), d = *(const Quad *)(x + 3 * from_step);
            Quad ab_low = SHUFFLE(a, b, 0, 4, 1, 5), ab_high = SHUFFLE(a, b, 2, 6, 3, 7);
            Quad cd_low = SHUFFLE(c, d, 0, 4, 1, 5), cd_high = SHUFFLE(c, d, 2, 6, 3, 7);
            float *y = to + column * to_step + row;
            *(Quad *)y = SHUFFLE(ab_low, cd_low, 0, 1, 4, 5);
            *(Quad *)(y + to_step) = SHUFFLE(ab_low, cd_low, 2, 3, 6, 7);
            *(Quad *)(y + 2 * to_step) = SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
            *(Quad *)(y + 3 * to_step) = SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
        }
}

#endif
