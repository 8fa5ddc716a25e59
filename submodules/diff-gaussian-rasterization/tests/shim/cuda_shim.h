// The CUDA language in plain C++, as far as our kernels use it: a .cu file compiled behind this header runs on the CPU,
// each thread of a block as a fiber (scheduler.cpp). One-dimensional grids and blocks; atomics are plain operations.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ static
// All of a launch's shared memory lies in one section, so that the scheduler can overwrite it before every block. The
// compiler must not take what nobody writes for a constant, hence `used`.
#if defined(__APPLE__)
#define __shared__ static __attribute__((section("__DATA,shim_shared"), used))
#else
#define __shared__ static __attribute__((section("shim_shared"), used))
#endif

#define SHIM_VECTOR(T, name, align)                                                                       \
    struct name##2 { T x, y; } __attribute__((aligned(2 * align)));                                       \
    struct name##3 { T x, y, z; };                                                                        \
    struct name##4 { T x, y, z, w; } __attribute__((aligned(4 * align)));                                 \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                            \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                    \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SHIM_VECTOR(float, float, 4)
SHIM_VECTOR(int, int, 4)
SHIM_VECTOR(unsigned, uint, 4)
#undef SHIM_VECTOR

extern uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

// ---- Synchronisation. Every call carries its place in the source: threads that meet must have come to the same one.
namespace shim {

struct Site {
    const char* name;  // of the intrinsic
    const char* file;
    int line;
};
struct Votes {
    int yes, all;
};
enum class Exchange { nothing, shuffle, ballot, match };

Votes barrier(bool vote, const Site& site);
// Waits until all lanes of the mask are here; what each gets is, by kind, the bits of the lane `source` (all ones where that
// is not in the mask), the mask of the lanes whose bits are not 0, or that of the lanes with the same bits.
uint64_t exchange(Exchange kind, unsigned mask, uint64_t bits, int source, const Site& site);
[[noreturn]] void trap(const Site& site);
void before_atomic(const void* memory, size_t size, const void* place);
void fence();

template <class T> uint64_t to_bits(T value) {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4 && sizeof(T) <= 8, "CUDA exchanges numbers of 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T> T shuffle(unsigned mask, T value, int source, const Site& site) {
    const uint64_t bits = exchange(Exchange::shuffle, mask, to_bits(value), source, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class To, class From> To bit_cast(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

inline int lane() { return static_cast<int>(threadIdx.x % 32); }

}  // namespace shim

#define SHIM_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SHIM_SITE shim::Site{__func__, file, line}

inline void __syncthreads(SHIM_PLACE) { shim::barrier(false, SHIM_SITE); }
inline int __syncthreads_count(int vote, SHIM_PLACE) { return shim::barrier(vote != 0, SHIM_SITE).yes; }
inline int __syncthreads_or(int vote, SHIM_PLACE) { return shim::barrier(vote != 0, SHIM_SITE).yes > 0; }
inline int __syncthreads_and(int vote, SHIM_PLACE) {
    const shim::Votes votes = shim::barrier(vote != 0, SHIM_SITE);
    return votes.yes == votes.all;
}
inline void __syncwarp(unsigned mask = 0xffffffff, SHIM_PLACE) {
    shim::exchange(shim::Exchange::nothing, mask, 0, 0, SHIM_SITE);
}
inline unsigned __ballot_sync(unsigned mask, int vote, SHIM_PLACE) {
    return static_cast<unsigned>(shim::exchange(shim::Exchange::ballot, mask, vote != 0, 0, SHIM_SITE));
}
inline int __any_sync(unsigned mask, int vote, SHIM_PLACE) {
    return shim::exchange(shim::Exchange::ballot, mask, vote != 0, 0, SHIM_SITE) != 0;
}
inline int __all_sync(unsigned mask, int vote, SHIM_PLACE) {
    return shim::exchange(shim::Exchange::ballot, mask, vote != 0, 0, SHIM_SITE) == mask;
}
template <class T> unsigned __match_any_sync(unsigned mask, T value, SHIM_PLACE) {
    return static_cast<unsigned>(shim::exchange(shim::Exchange::match, mask, shim::to_bits(value), 0, SHIM_SITE));
}
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, SHIM_PLACE) {
    return shim::shuffle(mask, value, (shim::lane() & -width) | (source & (width - 1)), SHIM_SITE);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SHIM_PLACE) {
    const int lane = shim::lane(), source = lane ^ bits;
    return shim::shuffle(mask, value, source < (lane & -width) + width ? source : lane, SHIM_SITE);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SHIM_PLACE) {
    const int lane = shim::lane(), source = lane + static_cast<int>(delta);
    return shim::shuffle(mask, value, source < (lane & -width) + width ? source : lane, SHIM_SITE);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SHIM_PLACE) {
    const int lane = shim::lane(), source = lane - static_cast<int>(delta);
    return shim::shuffle(mask, value, source >= (lane & -width) ? source : lane, SHIM_SITE);
}
inline void __threadfence() { shim::fence(); }
inline void __threadfence_block() {}
inline void __trap(SHIM_PLACE) { shim::trap(SHIM_SITE); }

// ---- Atomics: the second operand converts to the type of the first, as in CUDA's overloads.
#if defined(SHIM_RACES)  // their accesses to memory are none that can race (races.cpp)
#define SHIM_UNSEEN __attribute__((noinline, no_sanitize("thread")))
#else
#define SHIM_UNSEEN
#endif
#define SHIM_ATOMIC(name, updated)                                                                        \
    template <class T> SHIM_UNSEEN T name(T* address, std::common_type_t<T> value) {                      \
        static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4);                                         \
        shim::before_atomic(address, sizeof(T), __builtin_return_address(0));                               \
        const T old = *address;                                                                           \
        *address = (updated);                                                                             \
        return old;                                                                                       \
    }
SHIM_ATOMIC(atomicAdd, old + value)
SHIM_ATOMIC(atomicSub, old - value)
SHIM_ATOMIC(atomicMin, value < old ? value : old)
SHIM_ATOMIC(atomicMax, value > old ? value : old)
SHIM_ATOMIC(atomicAnd, old & value)
SHIM_ATOMIC(atomicOr, old | value)
SHIM_ATOMIC(atomicXor, old ^ value)
SHIM_ATOMIC(atomicExch, value)
#undef SHIM_ATOMIC
template <class T> SHIM_UNSEEN T atomicCAS(T* address, std::common_type_t<T> compare, std::common_type_t<T> value) {
    shim::before_atomic(address, sizeof(T), __builtin_return_address(0));
    const T old = *address;
    if (old == compare) *address = value;
    return old;
}

// ---- Integers
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
#define SHIM_MIN_MAX(A, B, T)                                                                             \
    inline T min(A a, B b) { return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); } \
    inline T max(A a, B b) { return static_cast<T>(a) > static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); }
SHIM_MIN_MAX(int, int, int)
SHIM_MIN_MAX(unsigned, unsigned, unsigned)
SHIM_MIN_MAX(int, unsigned, unsigned)
SHIM_MIN_MAX(unsigned, int, unsigned)
SHIM_MIN_MAX(long long, long long, long long)
SHIM_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef SHIM_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// ---- Floats. glibc declares some of the fast functions' names itself, hence macros.
inline unsigned __float_as_uint(float x) { return shim::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return shim::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return shim::bit_cast<float>(x); }
inline float __int_as_float(int x) { return shim::bit_cast<float>(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

template <class T> T __ldg(const T* address) { return *address; }
template <class T> T __ldcs(const T* address) { return *address; }
template <class T> T __ldcg(const T* address) { return *address; }
template <class T> void __stcs(T* address, std::common_type_t<T> value) { *address = value; }
template <class T> void __stcg(T* address, std::common_type_t<T> value) { *address = value; }
