// Attention, backward, first step: delta = rowsum(out * dout), which both other kernels subtract from dout v^T.
//
// out, dout (tq, heads, D) bf16; delta (heads, tq) f32. A warp takes one row, a block 8 tokens of one head, so that the
// results are written side by side. grid (heads, ceil(tq / 8)). Memory-bound: 4 D bytes a row.
// FlashAttention-2 (arXiv 2307.08691), algorithm 2, line 4.
#include "tile.cuh"

namespace {
constexpr int TOKENS = 8;

template <int D>
__device__ __forceinline__ void delta_of(const bf16* __restrict__ out, const bf16* __restrict__ dout,
                                         float* __restrict__ delta, int heads, int tq) {
  int lane = threadIdx.x & 31, token = blockIdx.y * TOKENS + threadIdx.x / 32, head = blockIdx.x;
  if (token >= tq) return;
  size_t from = ((size_t)token * heads + head) * D + lane * (D / 32);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < D / 32; i += 2) {
    float2 a = unpack2(*reinterpret_cast<const uint32_t*>(out + from + i));
    float2 b = unpack2(*reinterpret_cast<const uint32_t*>(dout + from + i));
    sum += a.x * b.x + a.y * b.y;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane == 0) delta[(size_t)head * tq + token] = sum;
}
}  // namespace

#define ENTRY(D)                                                                                                       \
  KERNEL __launch_bounds__(TOKENS * 32)                                                                                \
      attention_backward_delta_d##D(const bf16* out, const bf16* dout, float* delta, int heads, int tq) {              \
    delta_of<D>(out, dout, delta, heads, tq);                                                                          \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
