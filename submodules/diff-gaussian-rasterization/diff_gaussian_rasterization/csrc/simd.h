// One vector of floats for three instruction sets. Each instruction set is compiled into a library of its own, so nothing
// here can leak from one into another. LANES is 16 (AVX-512), 8 (AVX2) or 4 (portable: SSE2, NEON, anything GCC or clang knows).
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#if !defined(__clang__)  // GCC 12 warns about its own intrinsics
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#include <cmath>

namespace dgr {

// Four pixels of a row; the last ones of an image's row may be missing.
typedef float Row __attribute__((vector_size(16)));
inline Row load_row(const float* p, int count) {
    Row r;
    if (count >= 4) {
        std::memcpy(&r, p, sizeof r);
        return r;
    }
    return Row{count > 0 ? p[0] : 0.0f, count > 1 ? p[1] : 0.0f, count > 2 ? p[2] : 0.0f, 0.0f};
}
inline void store_row(float* p, Row r, int count) {
    if (count >= 4)
        std::memcpy(p, &r, sizeof r);
    else
        for (int i = 0; i < count; ++i) p[i] = r[i];
}

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
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
inline F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
inline F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
inline F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
inline F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
inline F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
inline F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }
inline F sqrt(F a) { return _mm512_sqrt_ps(a.v); }
// The root of a, or of 0 if a is negative, to one part in 16,000.
inline F near_sqrt(F a) {
    const F positive = max(a, F(1e-30f));
    return positive * F(_mm512_rsqrt14_ps(positive.v));
}
// 1 / a to a few units in the last place.
inline F reciprocal(F a) {
    const F r = _mm512_rcp14_ps(a.v);
    return r * fnma(a, r, F(2.0f));
}
inline F floor(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
inline F ceil(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
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
inline M lanes_of(uint32_t bits) { return {static_cast<__mmask16>(bits)}; }
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
// a0 b0 a1 b1 ... of the lower halves of a and b, and of the upper ones.
inline F interleave_low(F a, F b) {
    const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a.v, order, b.v);
}
inline F interleave_high(F a, F b) {
    const __m512i order = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a.v, order, b.v);
}
inline void store_integers(int32_t* p, F a) { _mm512_storeu_si512(p, _mm512_cvttps_epi32(a.v)); }
inline F round(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// The numbers of the lanes in m as integers, one after another; returns how many. Writes LANES numbers whatever m is.
inline int append(int32_t* out, M m, F a) {
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(m.v, _mm512_cvttps_epi32(a.v)));
    return __builtin_popcount(m.v);
}

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
inline F load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
inline F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
inline F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
inline F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
inline F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
inline F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
inline F min(F a, F b) { return _mm256_min_ps(a.v, b.v); }
inline F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }
inline F sqrt(F a) { return _mm256_sqrt_ps(a.v); }
inline F reciprocal(F a) { return F(1.0f) / a; }
inline F floor(F a) { return _mm256_floor_ps(a.v); }
inline F ceil(F a) { return _mm256_ceil_ps(a.v); }
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
inline M lanes_of(uint32_t bits) {
    const __m256i one = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), one), one))};
}
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
inline F interleave_low(F a, F b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v), 0x20);
}
inline F interleave_high(F a, F b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v), 0x31);
}
inline void store_integers(int32_t* p, F a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(a.v)); }
inline F round(F a) { return _mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// For each of the 256 masks, the numbers of its lanes.
struct PackTable {
    alignas(32) int32_t order[256][8] = {};
    PackTable() {
        for (int mask = 0; mask < 256; ++mask)
            for (int lane = 0, to = 0; lane < 8; ++lane)
                if (mask >> lane & 1) order[mask][to++] = lane;
    }
};
inline const PackTable PACK;
inline int append(int32_t* out, M m, F a) {
    const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(PACK.order[bits(m)]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(_mm256_cvttps_epi32(a.v), order));
    return __builtin_popcount(bits(m));
}

#else

constexpr int LANES = 4;
typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
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
inline F load(const float* p) {
    f32x4 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, F a) { std::memcpy(p, &a.v, sizeof a.v); }
inline F operator+(F a, F b) { return a.v + b.v; }
inline F operator-(F a, F b) { return a.v - b.v; }
inline F operator*(F a, F b) { return a.v * b.v; }
inline F operator/(F a, F b) { return a.v / b.v; }
inline F reciprocal(F a) { return F(1.0f) / a; }
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
inline M lanes_of(uint32_t bits) {
    const i32x4 one = {1, 2, 4, 8}, all = {1, 1, 1, 1};
    return {((static_cast<int32_t>(bits) * all) & one) == one};
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
inline F ceil(F a) {
    const F r = round(a);
    return r + keep(r < a, F(1.0f));
}
inline F scale_by_power(F a, F n) {
    // The integer sits in the low bits; the others are shifted out. Unsigned: a lane that is not used may overflow.
    const u32x4 shift = reinterpret_cast<u32x4>(n.v + 12582912.0f) << 23;
    return reinterpret_cast<f32x4>(reinterpret_cast<u32x4>(a.v) + shift);
}
inline F interleave_low(F a, F b) { return f32x4{a.v[0], b.v[0], a.v[1], b.v[1]}; }
inline F interleave_high(F a, F b) { return f32x4{a.v[2], b.v[2], a.v[3], b.v[3]}; }
inline void store_integers(int32_t* p, F a) {
    const i32x4 v = __builtin_convertvector(a.v, i32x4);
    std::memcpy(p, &v, sizeof v);
}
inline int append(int32_t* out, M m, F a) {
    const i32x4 v = __builtin_convertvector(a.v, i32x4);
    int count = 0;
    for (int lane = 0; lane < LANES; ++lane) {
        out[count] = v[lane];
        count += m.v[lane] & 1;
    }
    return count;
}

#endif

#if !defined(__AVX512F__)
inline F near_sqrt(F a) { return sqrt(max(a, F(0.0f))); }
#endif
inline F operator-(F a) { return F(0.0f) - a; }
inline F& operator+=(F& a, F b) { return a = a + b; }

inline F log2(F a) {
    alignas(64) float lane[LANES];
    store(lane, a);
    for (float& x : lane) x = std::log2(x);
    return load(lane);
}

// Of a square of numbers: v[i] lane j becomes v[j] lane i, by as many perfect shuffles as a lane's number has bits.
inline void transpose(F* v) {
    F next[LANES];
    for (int size = LANES; size > 1; size /= 2) {
        for (int i = 0; i < LANES / 2; ++i) {
            next[2 * i] = interleave_low(v[i], v[i + LANES / 2]);
            next[2 * i + 1] = interleave_high(v[i], v[i + LANES / 2]);
        }
        for (int i = 0; i < LANES; ++i) v[i] = next[i];
    }
}

alignas(64) constexpr float LANE_NUMBERS[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// 2^a for |a| < 126: the minimax polynomial of degree 5 on [-1/2, 1/2], relative error 7e-8.
inline F exp2(F a) {
    const F n = round(a);
    const F f = a - n;
    const F f2 = f * f;
    const F low = fma(F(6.931469671e-01f), f, F(1.000000072f)), middle = fma(F(5.550713276e-02f), f, F(2.402211972e-01f));
    const F high = fma(F(1.327647174e-03f), f, F(9.675541540e-03f));
    const F p = fma(fma(high, f2, middle), f2, low);
    return scale_by_power(p, n);
}

}  // namespace dgr
