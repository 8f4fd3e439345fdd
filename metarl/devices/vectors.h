// Vectors of floats, and products of small matrices in a core's cache: what compiled loops share.

#pragma once

#include <algorithm>
#include <cstdint>

namespace {

#ifdef __AVX512F__
constexpr int WIDTH = 16, VECTORS = 3;  // floats per vector; vectors per row of a tile of 8 rows
#else
constexpr int WIDTH = 8, VECTORS = 1;
#endif
constexpr int ROWS = 8;

typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef float Unaligned __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * WIDTH)));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vector values) { *reinterpret_cast<Unaligned*>(to) = values; }

// exp(x) for |x| < 88, to 2 units in the last place: 2^n exp(r) with |r| < 0.35, by a polynomial (Cephes' expf).
inline Vector exponential(Vector x) {
    const Vector rounder = Vector{} + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
    const Vector whole = (x * 1.44269504088896341f + rounder) - rounder;
    const Vector rest = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    Vector sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    return sum * (Vector)((__builtin_convertvector(whole, Integers) + 127) << 23);
}

// 1 + exp(-x), the reciprocal of the sigmoid. x is clamped to 30, where the sigmoid is 0 or 1 within 1e-13, so that the
// product of two of these does not overflow.
inline Vector one_plus(Vector x) {
    const Vector far = Vector{} + 30.0f;
    x = x > far ? far : x;  // NaN stays NaN
    x = x < -far ? -far : x;
    return exponential(-x) + 1.0f;
}

inline Vector tanh_of(Vector x) { return 2.0f / one_plus(2.0f * x) - 1.0f; }

// A matrix whose entry (i, k) is at data[i * row + k * column].
struct Left {
    const float* data;
    int64_t row, column;
};

template <int HEIGHT, int BREADTH>
inline void tile(Left a, const float* b, int64_t b_row, int depth, float* out, int64_t out_row) {
    Vector sums[HEIGHT][BREADTH] = {};  // added to ``out`` at the end, because nested sums have smaller rounding errors
    for (int k = 0; k < depth; ++k) {
        Vector factors[BREADTH];
        for (int j = 0; j < BREADTH; ++j) factors[j] = load(b + k * b_row + j * WIDTH);
        for (int i = 0; i < HEIGHT; ++i)
            for (int j = 0; j < BREADTH; ++j) sums[i][j] += factors[j] * a.data[i * a.row + k * a.column];
    }
    for (int i = 0; i < HEIGHT; ++i, out += out_row)
        for (int j = 0; j < BREADTH; ++j) store(out + j * WIDTH, load(out + j * WIDTH) + sums[i][j]);
}

template <int HEIGHT>
inline void band(Left a, const float* b, int64_t b_row, int depth, int columns, float* out, int64_t out_row) {
    int j = 0;
    for (; j + VECTORS * WIDTH <= columns; j += VECTORS * WIDTH)
        tile<HEIGHT, VECTORS>(a, b + j, b_row, depth, out + j, out_row);
    for (; j < columns; j += WIDTH) tile<HEIGHT, 1>(a, b + j, b_row, depth, out + j, out_row);
}

// out [rows, columns] += a [rows, depth] @ b [depth, columns]; columns are a multiple of WIDTH.
void add_product(
    Left a, const float* b, int64_t b_row, int rows, int depth, int columns, float* out, int64_t out_row
) {
    for (; rows >= ROWS; rows -= ROWS, a.data += ROWS * a.row, out += ROWS * out_row)
        band<ROWS>(a, b, b_row, depth, columns, out, out_row);
    for (; rows >= ROWS / 2; rows -= ROWS / 2, a.data += ROWS / 2 * a.row, out += ROWS / 2 * out_row)
        band<ROWS / 2>(a, b, b_row, depth, columns, out, out_row);
    for (; rows > 0; --rows, a.data += a.row, out += out_row) band<1>(a, b, b_row, depth, columns, out, out_row);
}

}  // namespace
