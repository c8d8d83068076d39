// What kernels on elements and on rows share: 16-byte reads and writes of bf16 and f32 as f32 numbers, loops over them,
// and sums over a warp and a block in a fixed order.
#pragma once
#include "compat.cuh"

// Numbers of a T in 16 bytes.
template <typename T>
constexpr int WIDTH = 16 / sizeof(T);

template <int N>
struct Numbers {
  float x[N];
};

// A size known to the compiler, as an argument.
template <int N>
struct Count {
  static constexpr int value = N;
};

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(bf16 x) { return to_float(x); }
__device__ __forceinline__ void put(float* p, float x) { *p = x; }
__device__ __forceinline__ void put(bf16* p, float x) { *p = to_bf16(x); }
// x as a T holds it.
__device__ __forceinline__ float rounded_as(const float*, float x) { return x; }
__device__ __forceinline__ float rounded_as(const bf16*, float x) { return to_float(to_bf16(x)); }

// N numbers from p on; N > 1 is WIDTH<T>, and p a multiple of 16 bytes then.
template <int N, typename T>
__device__ __forceinline__ Numbers<N> load(const T* p) {
  Numbers<N> v;
  if constexpr (N == 1) {
    v.x[0] = number(*p);
  } else if constexpr (sizeof(T) == 4) {
    float4 q = *reinterpret_cast<const float4*>(p);
    v.x[0] = q.x, v.x[1] = q.y, v.x[2] = q.z, v.x[3] = q.w;
  } else {
    uint4 q = *reinterpret_cast<const uint4*>(p);
    uint32_t pairs[4] = {q.x, q.y, q.z, q.w};
    for (int i = 0; i < 4; i++) {
      float2 two = unpack2(pairs[i]);
      v.x[2 * i] = two.x, v.x[2 * i + 1] = two.y;
    }
  }
  return v;
}

template <int N, typename T>
__device__ __forceinline__ void store(T* p, const Numbers<N>& v) {
  if constexpr (N == 1) {
    put(p, v.x[0]);
  } else if constexpr (sizeof(T) == 4) {
    *reinterpret_cast<float4*>(p) = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]);
  } else {
    *reinterpret_cast<uint4*>(p) =
        make_uint4(pack2(v.x[0], v.x[1]), pack2(v.x[2], v.x[3]), pack2(v.x[4], v.x[5]), pack2(v.x[6], v.x[7]));
  }
}

// N f32 numbers (a norm's weight beside bf16 activations): 16 bytes at a time where N allows; p a multiple of 16 bytes
// then.
template <int N>
__device__ __forceinline__ Numbers<N> load_f32(const float* p) {
  Numbers<N> v;
  if constexpr (N % 4 == 0) {
    for (int i = 0; i < N; i += 4) {
      float4 q = *reinterpret_cast<const float4*>(p + i);
      v.x[i] = q.x, v.x[i + 1] = q.y, v.x[i + 2] = q.z, v.x[i + 3] = q.w;
    }
  } else {
    for (int i = 0; i < N; i++) v.x[i] = p[i];
  }
  return v;
}

__device__ __forceinline__ bool aligned(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

// Calls f(i, Count<N>) so that all of 0..n is covered once by `count` workers, of which this is number `me`: WIDTH<T>
// at a time where `wide` (every array involved is aligned), the rest one by one.
template <typename T, typename F>
__device__ __forceinline__ void share_out(size_t n, bool wide, size_t me, size_t count, F f) {
  size_t packs = wide ? n / WIDTH<T> : 0;
  for (size_t i = me; i < packs; i += count) f(i * WIDTH<T>, Count<WIDTH<T>>());
  for (size_t i = packs * WIDTH<T> + me; i < n; i += count) f(i, Count<1>());
}

// Over the whole grid's threads.
template <typename T, typename F>
__device__ __forceinline__ void over_grid(size_t n, bool wide, F f) {
  share_out<T>(n, wide, blockIdx.x * (size_t)blockDim.x + threadIdx.x, gridDim.x * (size_t)blockDim.x, f);
}

// Over the block's threads.
template <typename T, typename F>
__device__ __forceinline__ void over_block(size_t n, bool wide, F f) {
  share_out<T>(n, wide, threadIdx.x, blockDim.x, f);
}

// The warp's sum, in every lane: halves added pairwise.
template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
  for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(0xffffffffu, x, bits);
  return x;
}

// The block's sum, in every thread: warps added in order. `shared` has a place for each warp; whole warps only.
template <typename T>
__device__ __forceinline__ T block_sum(T x, T* shared) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; w++) sum += shared[w];
  __syncthreads();
  return sum;
}
