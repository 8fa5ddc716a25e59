// What math.h and sh.h ask of a number, for a single float, on the device (NVRTC, no header of CUDA's) and on the host (the
// shim of the tests).
#pragma once

namespace dgr {

using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

#if defined(__CUDACC__)
#define DGR_SCALAR __host__ __device__ inline
#else
#define DGR_SCALAR inline
#endif

DGR_SCALAR float min(float a, float b) { return fminf(a, b); }
DGR_SCALAR float max(float a, float b) { return fmaxf(a, b); }
DGR_SCALAR float sqrt(float a) { return sqrtf(a); }
DGR_SCALAR float fma(float a, float b, float c) { return fmaf(a, b, c); }
DGR_SCALAR float select(bool m, float a, float b) { return m ? a : b; }
DGR_SCALAR float keep(bool m, float a) { return m ? a : 0.0f; }
DGR_SCALAR bool finite(float a) { return fabsf(a) <= 3.402823466e38f; }

// A product that the compiler does not fuse with a sum. Two kernels that must decide alike write their sums with fma and this.
DGR_SCALAR float product(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

// 2^a to two units in the last place; results below 2^-126 are 0.
DGR_SCALAR float power_of_two(float a) {
#if defined(__CUDA_ARCH__)
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
    return r;
#else
    return exp2f(a);
#endif
}

}  // namespace dgr
