// One vector of floats for three instruction sets. Each instruction set is compiled into a library of its own, so nothing
// here can leak from one into another. LANES is 16 (AVX-512), 8 (AVX2) or 4 (portable: SSE2, NEON, anything GCC or clang knows).
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#include <cmath>

namespace dgr {

// Four pixels of a row; the last ones of an image's row may be missing.
typedef float Row __attribute__((vector_size(16)));
inline Row load_row(const float* p, int count) {
    Row r = {0.0f, 0.0f, 0.0f, 0.0f};
    if (count >= 4)
        std::memcpy(&r, p, sizeof r);
    else
        std::memcpy(&r, p, count * sizeof(float));
    return r;
}
inline void store_row(float* p, Row r, int count) { std::memcpy(p, &r, count >= 4 ? sizeof r : count * sizeof(float)); }

#if defined(__AVX512F__)

constexpr int LANES = 16;
struct F {
    __m512 v;
    F() = default;
    F(__m512 a) : v(a) {}
    F(float s) : v(_mm512_set1_ps(s)) {}
};
struct M {
    __mmask16 v;
};
inline F load(const float* p) { return _mm512_load_ps(p); }
inline void store(float* p, F a) { _mm512_store_ps(p, a.v); }
inline F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
inline F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
inline F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
inline F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
inline F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
inline F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
inline F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }
inline F sqrt(F a) { return _mm512_sqrt_ps(a.v); }
inline F floor(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
inline M operator>=(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
inline M operator>(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline M operator<=(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline M operator<(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline M operator&(M a, M b) { return {static_cast<__mmask16>(a.v & b.v)}; }
inline M andnot(M a, M b) { return {static_cast<__mmask16>(a.v & ~b.v)}; }  // a and not b
inline F select(M m, F a, F b) { return _mm512_mask_blend_ps(m.v, b.v, a.v); }
inline F keep(M m, F a) { return _mm512_maskz_mov_ps(m.v, a.v); }  // a where m, else 0
inline bool any(M m) { return m.v != 0; }
inline uint32_t bits(M m) { return m.v; }
// out[k] = the sum over the lanes of v[k], for ten vectors; out holds 16 floats. Vectors are halved and paired until one is left.
inline void sum_ten(const F* v, float* out) {
    __m512 pair[6], four[3];
    for (int k = 0; k < 5; ++k)
        pair[k] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * k].v, v[2 * k + 1].v, 0x44),
                                _mm512_shuffle_f32x4(v[2 * k].v, v[2 * k + 1].v, 0xEE));
    pair[5] = _mm512_setzero_ps();
    for (int k = 0; k < 3; ++k)
        four[k] = _mm512_add_ps(_mm512_shuffle_f32x4(pair[2 * k], pair[2 * k + 1], 0x88),
                                _mm512_shuffle_f32x4(pair[2 * k], pair[2 * k + 1], 0xDD));
    const __m512 low = _mm512_add_ps(_mm512_unpacklo_ps(four[0], four[1]), _mm512_unpackhi_ps(four[0], four[1]));
    const __m512 high = _mm512_add_ps(_mm512_unpacklo_ps(four[2], pair[5]), _mm512_unpackhi_ps(four[2], pair[5]));
    const __m512 sums = _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xEE));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 3, 7, 10, 11, 14, 15);
    _mm512_store_ps(out, _mm512_permutexvar_ps(order, sums));
}
inline F scale_by_power(F a, F n) { return _mm512_scalef_ps(a.v, n.v); }
inline F round(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#elif defined(__AVX2__)

constexpr int LANES = 8;
struct F {
    __m256 v;
    F() = default;
    F(__m256 a) : v(a) {}
    F(float s) : v(_mm256_set1_ps(s)) {}
};
struct M {
    __m256 v;
};
inline F load(const float* p) { return _mm256_load_ps(p); }
inline void store(float* p, F a) { _mm256_store_ps(p, a.v); }
inline F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
inline F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
inline F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
inline F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
inline F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
inline F min(F a, F b) { return _mm256_min_ps(a.v, b.v); }
inline F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }
inline F sqrt(F a) { return _mm256_sqrt_ps(a.v); }
inline F floor(F a) { return _mm256_floor_ps(a.v); }
inline M operator>=(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
inline M operator>(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
inline M operator<=(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
inline M operator<(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline M operator&(M a, M b) { return {_mm256_and_ps(a.v, b.v)}; }
inline M andnot(M a, M b) { return {_mm256_andnot_ps(b.v, a.v)}; }
inline F select(M m, F a, F b) { return _mm256_blendv_ps(b.v, a.v, m.v); }
inline F keep(M m, F a) { return _mm256_and_ps(m.v, a.v); }
inline bool any(M m) { return _mm256_movemask_ps(m.v) != 0; }
inline uint32_t bits(M m) { return static_cast<uint32_t>(_mm256_movemask_ps(m.v)); }
inline void sum_ten(const F* v, float* out) {
    __m256 pair[6];
    for (int k = 0; k < 5; ++k)
        pair[k] = _mm256_add_ps(_mm256_permute2f128_ps(v[2 * k].v, v[2 * k + 1].v, 0x20),
                                _mm256_permute2f128_ps(v[2 * k].v, v[2 * k + 1].v, 0x31));
    pair[5] = _mm256_setzero_ps();
    __m256 four[3];
    for (int k = 0; k < 3; ++k)
        four[k] = _mm256_add_ps(_mm256_unpacklo_ps(pair[2 * k], pair[2 * k + 1]), _mm256_unpackhi_ps(pair[2 * k], pair[2 * k + 1]));
    const __m256 low = _mm256_add_ps(_mm256_shuffle_ps(four[0], four[1], 0x44), _mm256_shuffle_ps(four[0], four[1], 0xEE));
    const __m256 high = _mm256_add_ps(_mm256_shuffle_ps(four[2], pair[5], 0x44), _mm256_shuffle_ps(four[2], pair[5], 0xEE));
    _mm256_store_ps(out, _mm256_permutevar8x32_ps(low, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    _mm256_store_ps(out + 8, _mm256_permutevar8x32_ps(high, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}
inline F scale_by_power(F a, F n) {
    const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), shift));
}
inline F round(F a) { return _mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#else

constexpr int LANES = 4;
typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
struct F {
    f32x4 v;
    F() = default;
    F(f32x4 a) : v(a) {}
    F(float s) : v(f32x4{s, s, s, s}) {}
};
struct M {
    i32x4 v;
};
inline f32x4 as_float(i32x4 a) { return reinterpret_cast<f32x4>(a); }
inline i32x4 as_int(f32x4 a) { return reinterpret_cast<i32x4>(a); }
inline F load(const float* p) { return *reinterpret_cast<const f32x4*>(p); }
inline void store(float* p, F a) { *reinterpret_cast<f32x4*>(p) = a.v; }
inline F operator+(F a, F b) { return a.v + b.v; }
inline F operator-(F a, F b) { return a.v - b.v; }
inline F operator*(F a, F b) { return a.v * b.v; }
inline F operator/(F a, F b) { return a.v / b.v; }
#if defined(__ARM_NEON) && defined(__aarch64__)
inline F fma(F a, F b, F c) { return (f32x4)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v); }
inline F fnma(F a, F b, F c) { return (f32x4)vfmsq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v); }
#else
inline F fma(F a, F b, F c) { return a.v * b.v + c.v; }
inline F fnma(F a, F b, F c) { return c.v - a.v * b.v; }
#endif
inline M operator>=(F a, F b) { return {a.v >= b.v}; }
inline M operator>(F a, F b) { return {a.v > b.v}; }
inline M operator<=(F a, F b) { return {a.v <= b.v}; }
inline M operator<(F a, F b) { return {a.v < b.v}; }
inline M operator&(M a, M b) { return {a.v & b.v}; }
inline M andnot(M a, M b) { return {a.v & ~b.v}; }
inline F select(M m, F a, F b) { return as_float((m.v & as_int(a.v)) | (~m.v & as_int(b.v))); }
inline F keep(M m, F a) { return as_float(m.v & as_int(a.v)); }
inline F min(F a, F b) { return select(a < b, a, b); }
inline F max(F a, F b) { return select(a > b, a, b); }
inline F sqrt(F a) {
    return f32x4{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])};
}
inline uint32_t bits(M m) {
    return static_cast<uint32_t>((m.v[0] & 1) | (m.v[1] & 2) | (m.v[2] & 4) | (m.v[3] & 8));
}
inline bool any(M m) { return bits(m) != 0; }
inline void sum_ten(const F* v, float* out) {
    for (int k = 0; k < 10; ++k) out[k] = (v[k].v[0] + v[k].v[1]) + (v[k].v[2] + v[k].v[3]);
}
// Adding 1.5 * 2^23 rounds to the nearest integer; |a| stays below 2^22 wherever this is used.
inline F round(F a) { return (a.v + 12582912.0f) - 12582912.0f; }
inline F floor(F a) {
    const F r = round(a);
    return r - keep(r > a, F(1.0f));
}
inline F scale_by_power(F a, F n) {
    const i32x4 shift = as_int(n.v + 12582912.0f) << 23;  // the integer sits in the low bits; the others are shifted out
    return as_float(as_int(a.v) + shift);
}

#endif

inline F operator-(F a) { return F(0.0f) - a; }
inline F& operator+=(F& a, F b) { return a = a + b; }

// 2^a for |a| < 126: the minimax polynomial of degree 5 on [-1/2, 1/2], relative error 7e-8.
inline F exp2(F a) {
    const F n = round(a);
    const F f = a - n;
    F p = fma(F(1.327647174e-03f), f, F(9.675541540e-03f));
    p = fma(p, f, F(5.550713276e-02f));
    p = fma(p, f, F(2.402211972e-01f));
    p = fma(p, f, F(6.931469671e-01f));
    p = fma(p, f, F(1.000000072f));
    return scale_by_power(p, n);
}

}  // namespace dgr
