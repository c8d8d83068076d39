// Decode attention, second step: a row's chunks, first to last, become its output.
//
//   out = sum_c 2^(m_c - M) o_c / sum_c 2^(m_c - M) l_c,  M = max_c m_c
//
// partial_o (rows, heads, chunks, D), partial_ml (rows, heads, chunks) from decode.cu, `chunks` those of the longest
// row; out (rows, heads, D) bf16. grid (heads, rows), a thread a channel; a chunk's D numbers are read side by side.
// One order whatever the batch.
#include "decode.cuh"

namespace {
template <int D>
__device__ __forceinline__ void merge(const float* __restrict__ partial_o, const float2* __restrict__ partial_ml,
                                      const Row* __restrict__ rows, bf16* __restrict__ out, int heads, int chunks) {
  int head = blockIdx.x, row = blockIdx.y, channel = threadIdx.x;
  int count = ((int)rows[row].length + CHUNK - 1) / CHUNK;
  size_t number = (size_t)row * heads + head;
  const float* o = partial_o + number * chunks * D + channel;
  const float2* ml = partial_ml + number * chunks;
  float top = -INFINITY, sum = 0.0f, value = 0.0f;
  for (int c = 0; c < count; c++) top = fmaxf(top, ml[c].x);
  for (int c = 0; c < count; c++) {
    float weight = exp2_fast(ml[c].x - top);
    sum += weight * ml[c].y;
    value += weight * o[(size_t)c * D];
  }
  out[number * D + channel] = to_bf16(value / sum);
}
}  // namespace

#define ENTRY(D)                                                                                                       \
  KERNEL __launch_bounds__(D)                                                                                          \
      attention_decode_merge_d##D(const float* partial_o, const float2* partial_ml, const Row* rows, bf16* out,        \
                                  int heads, int chunks) {                                                             \
    merge<D>(partial_o, partial_ml, rows, out, heads, chunks);                                                         \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
