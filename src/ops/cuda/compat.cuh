// One kernel source, two compilers: nvcc makes the real instructions, `g++ -DCUDA_EMU` runs the same source with one
// fiber for each CUDA thread (tests/emulation). Kernels use only what stands here and what both sides know anyway
// (threadIdx, __syncthreads, __shfl_*_sync with a full mask, float2/float4/uint4, fmaxf ...).
//
// The PTX ISA's names and layouts: mma.m16n8k16 (9.7.14.5.8), ldmatrix (9.7.14.5.15), movmatrix (9.7.14.5.17),
// cp.async (9.7.9.25.3).
#pragma once

#ifdef CUDA_EMU
#include "emu/cuda.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

// An entry point, found by its plain name.
#define KERNEL extern "C" __global__ void

// The block's dynamic shared memory.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

// 2^x. The hardware's own approximation: 2 ulp, exp2(-inf) = 0, exp2(0) = 1.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ bf16 to_bf16(float x) { return __float2bfloat16_rn(x); }

// Two numbers rounded to bf16; `low` has the lower address.
__device__ __forceinline__ uint32_t pack2(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<uint32_t*>(&pair);
}

__device__ __forceinline__ float2 unpack2(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// Two numbers as e4m3, to nearest, ties to even, beyond 448 as 448; the code of `low` is the lower byte.
__device__ __forceinline__ uint32_t pack2_e4m3(float low, float high) {
  return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

// c (16, 8) += a (16, 16) . b (16, 8), the warp's lanes holding (g = lane / 4, t = lane % 4)
//   a: [g][2t], [g + 8][2t], [g][2t + 8], [g + 8][2t + 8] and each one's right neighbour
//   b: [2t][g], [2t + 8][g] and each one's lower neighbour
//   c: [g][2t], [g][2t + 1], [g + 8][2t], [g + 8][2t + 1]
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// An 8 x 8 matrix of 16-bit elements, of which each lane has [lane / 4][2 (lane % 4)] and its right neighbour,
// transposed.
__device__ __forceinline__ uint32_t transposed(uint32_t pair) {
  uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(result) : "r"(pair));
  return result;
}

// The same number, of which the compiler does not know that it has it already.
__device__ __forceinline__ uint32_t forgotten(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

// An address that was itself read from memory, of which the compiler does not know that it is one of global memory.
template <typename T>
__device__ __forceinline__ T* in_global(T* p) {
  __builtin_assume(__isGlobal(p));
  return p;
}

// An address in shared memory: there 32 bits.
typedef uint32_t shared_t;
__device__ __forceinline__ shared_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four 8 x 8 matrices of 16-bit elements: lane 8i + r points to row r of matrix i (16 bytes, aligned) and gets
// [lane / 4][2 (lane % 4)] and its right neighbour of each.
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], shared_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// The same, of the transposed matrices: [2 (lane % 4)][lane / 4] and its lower neighbour of each.
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&r)[4], shared_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// Global to shared memory past the registers and L1. Without `valid`, zeros are written and nothing is read.
__device__ __forceinline__ void copy16(void* to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void copy4(void* to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 4 : 0)
               : "memory");
}

// Closes the group of copies that this thread began since the last one.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// This thread's copies have arrived, all but its N youngest groups. Other threads see them after a barrier.
template <int N>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}
#endif
