// Rotary position embedding (Su et al., RoFormer, arXiv 2104.09864) in HF's layout: channel c turns with channel c +
// half.
//   y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin; angle = inv_freq[c] * position, a product in f32 as HF computes it.
// The backward pass turns the other way: sign = -1.
//
// q, turned_q (tokens, heads, 2 half) and k, turned_k (tokens, kv_heads, 2 half) of one type T (bf16 or f32); positions
// (tokens) u32; inv_freq (half) f32. A block a token: its cosines and sines are computed once for all heads of q and of
// k (0 of them: none), into 2 half floats of dynamic shared memory. Arithmetic f32, sine and cosine to 2 ulp (not the
// hardware's approximation: positions reach thousands of turns), each result rounded once.
// Memory: reads and writes each element once; ~6 operations an element: bound by memory.
#include "../cuda/elements.cuh"

// The heads of this block's token, by angles that are in shared memory already.
template <typename T>
__device__ __forceinline__ void turn_heads(const T* x, T* y, int heads, int half, const float* cosines,
                                           const float* sines) {
  size_t row = blockIdx.x * (size_t)heads * 2 * half;
  x += row, y += row;
  // A head's half is whole packs, so that a pack's partners are a pack.
  bool wide = aligned(x) && aligned(y) && half % WIDTH<T> == 0;
  over_block<T>((size_t)heads * half, wide, [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    int head = (int)i / half, c = (int)i % half;
    size_t first = (size_t)head * 2 * half + c;
    Numbers<N> a = load<N>(x + first), b = load<N>(x + first + half);
    for (int j = 0; j < N; j++) {
      float cosine = cosines[c + j], sine = sines[c + j], p = a.x[j], q = b.x[j];
      a.x[j] = p * cosine - q * sine;
      b.x[j] = q * cosine + p * sine;
    }
    store(y + first, a);
    store(y + first + half, b);
  });
}

template <typename T>
__device__ __forceinline__ void turn(const T* q, T* turned_q, int heads, const T* k, T* turned_k, int kv_heads,
                                     const uint32_t* positions, const float* inv_freq, int half, float sign,
                                     float* shared) {
  float *cosines = shared, *sines = shared + half;
  float position = (float)positions[blockIdx.x];
  for (int c = threadIdx.x; c < half; c += blockDim.x) {
    float angle = inv_freq[c] * position;
    cosines[c] = cosf(angle);
    sines[c] = sign * sinf(angle);
  }
  __syncthreads();
  turn_heads(q, turned_q, heads, half, cosines, sines);
  turn_heads(k, turned_k, kv_heads, half, cosines, sines);
}

KERNEL rope_bf16(const bf16* q, bf16* turned_q, int heads, const bf16* k, bf16* turned_k, int kv_heads,
                 const uint32_t* positions, const float* inv_freq, int half, float sign) {
  DYNAMIC_SHARED(shared);
  turn(q, turned_q, heads, k, turned_k, kv_heads, positions, inv_freq, half, sign, (float*)shared);
}
KERNEL rope_f32(const float* q, float* turned_q, int heads, const float* k, float* turned_k, int kv_heads,
                const uint32_t* positions, const float* inv_freq, int half, float sign) {
  DYNAMIC_SHARED(shared);
  turn(q, turned_q, heads, k, turned_k, kv_heads, positions, inv_freq, half, sign, (float*)shared);
}
