// The types and small functions that CUDA has and C++ has not.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __restrict__
#define __constant__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(16) int4 { int32_t x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

static inline float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline double __longlong_as_double(uint64_t u) { double f; memcpy(&f, &u, 8); return f; }
static inline uint64_t __double_as_longlong(double f) { uint64_t u; memcpy(&u, &f, 8); return u; }
static inline int __float_as_int(float f) { return (int)__float_as_uint(f); }
static inline float __int_as_float(int i) { return __uint_as_float((uint32_t)i); }

struct bf16 { uint16_t bits; };
static inline float to_float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
// Round to nearest even; a NaN stays one.
static inline bf16 to_bf16(float x) {
  uint32_t u = __float_as_uint(x);
  if (x != x) return bf16{0x7fff};
  return bf16{(uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}
static inline uint32_t pack2(float low, float high) { return to_bf16(low).bits | (uint32_t)to_bf16(high).bits << 16; }
static inline float2 unpack2(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

// The e4m3 number nearest to x, of two the even one, by trying all: the stand-in for an instruction.
static inline float e4m3_value(uint8_t code) {
  int exponent = code >> 3 & 15, mantissa = code & 7;
  return exponent ? ldexpf(8 + mantissa, exponent - 10) : ldexpf(mantissa, -9);
}
static inline uint8_t to_e4m3(float x) {
  uint8_t sign = __float_as_uint(x) >> 24 & 128;
  if (x != x) return 127;
  float size = std::min(fabsf(x), 448.0f);
  uint8_t code = 0;
  while (code < 126 && e4m3_value(code + 1) <= size) code++;
  // The middle of two neighbours is exact.
  float middle = code < 126 ? (e4m3_value(code) + e4m3_value(code + 1)) / 2 : size + 1;
  return sign | (uint8_t)(code + (size > middle || (size == middle && code % 2)));
}
static inline uint32_t pack2_e4m3(float low, float high) { return to_e4m3(low) | (uint32_t)to_e4m3(high) << 8; }

using std::max;
using std::min;
static inline float exp2_fast(float x) { return exp2f(x); }
// (glibc has functions of these names.)
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float __fdividef(float x, float y) { return x / y; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float __fmul_rn(float x, float y) { volatile float p = x * y; return p; }
static inline float __fadd_rn(float x, float y) { volatile float s = x + y; return s; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline uint32_t __umulhi(uint32_t x, uint32_t y) { return (uint32_t)(((uint64_t)x * y) >> 32); }
static inline uint64_t __umul64hi(uint64_t x, uint64_t y) { return (uint64_t)(((unsigned __int128)x * y) >> 64); }
static inline int __popc(uint32_t x) { return __builtin_popcount(x); }
template <typename T> static inline T __ldg(const T* p) { return *p; }
template <typename T> static inline T __ldcs(const T* p) { return *p; }
template <typename T> static inline void __stcs(T* p, T x) { *p = x; }
