// Attention, forward, for Hopper (sm_90a): forward.cu with the warpgroups' own matrix instruction, which alone reaches
// the card's rate.
//
// Same grid, blocks, walk and masks as forward.cu, which says what is computed; only the products differ: a block's 128
// queries are two warpgroups of 64 rows, q k^T takes both operands from shared memory, p v takes p from registers
// (wgmma's accumulators have mma's layout, warp by warp). Two blocks to an SM, so that one's softmax runs under the
// other's products. Copies are cp.async as there; TMA and a warp that only copies (FlashAttention-3, arXiv 2407.08608)
// are not tried yet. No warp skips a step that its rows do not see: wgmma takes all four of a group. Timed on an H200:
// benches/README.md.
#include "panels.cuh"

namespace {
[[maybe_unused]] constexpr int QUERIES = 128, KEYS = 64, THREADS = 256;

template <int D>
__device__ __forceinline__ void forward_90(const bf16* __restrict__ q, const bf16* __restrict__ k,
                                           const bf16* __restrict__ v, bf16* __restrict__ out, float* __restrict__ lse,
                                           const uint32_t* __restrict__ q_offsets,
                                           const uint32_t* __restrict__ kv_offsets, int heads, int kv_heads, int tq,
                                           float log2_scale) {
#ifdef HOPPER
  DYNAMIC_SHARED(memory);
  bf16* queries = reinterpret_cast<bf16*>(panels_in(memory));
  bf16 *keys = queries + QUERIES * D, *values = keys + KEYS * D;

  QueryBlock block = query_block<QUERIES>(q_offsets, kv_offsets, blockIdx.y, blockIdx.z);
  if (block.valid <= 0) return;
  int head = blockIdx.x, kv_head = head / (heads / kv_heads), stride = heads * D, kv_stride = kv_heads * D;
  int valid = block.valid, key_count = block.key_count();
  q += ((size_t)block.row() * heads + head) * D;
  k += ((size_t)block.theirs.start * kv_heads + kv_head) * D;
  v += ((size_t)block.theirs.start * kv_heads + kv_head) * D;

  load_panels<D, QUERIES, THREADS>(queries, q, stride, valid);
  load_panels<D, KEYS, THREADS>(keys, k, kv_stride, key_count);
  copy_commit();

  int lane = threadIdx.x & 31, row = threadIdx.x / 32 * 16;
  shared_t queries_at = shared_address(queries) + threadIdx.x / 128 * (64 * 128);
  float o[D / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {};
  // Of the `remaining` keys, a thread's first element sees those up to `remaining + first_seen`, from its column on.
  int first_seen = row + lane / 4 - lane % 4 * 2 - valid;

  for (int remaining = key_count; remaining > 0; remaining -= KEYS) {
    copy_wait<0>();
    wgmma_see_shared();
    __syncthreads();
    load_panels<D, KEYS, THREADS>(values, v, kv_stride, remaining);
    copy_commit();
    v += (size_t)KEYS * kv_stride;

    float s[KEYS / 8][4] = {};
    wgmma_begin(s);
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
      uint64_t a = descriptor(queries_at + d / 4 * (QUERIES * 128) + d % 4 * 32, 16);
      uint64_t b = descriptor(shared_address(keys) + d / 4 * (KEYS * 128) + d % 4 * 32, 16);
      wgmma_rows(s, a, b);
    }
    wgmma_end(s);

    copy_wait<0>();
    wgmma_see_shared();
    __syncthreads();
    if (remaining > KEYS) {
      k += (size_t)KEYS * kv_stride;
      load_panels<D, KEYS, THREADS>(keys, k, kv_stride, remaining - KEYS);
      copy_commit();
    }

    int seen = remaining + first_seen;
    if (KEYS - 7 > seen) {
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (n * 8 + e % 2 - e / 2 * 8 > seen) s[n][e] = -INFINITY;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float top = m[h];
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      top = row_max(top);
      float shrink = exp2_fast((m[h] - top) * log2_scale), minus = -top * log2_scale, sum = 0.0f;
      m[h] = top;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) {
          s[n][e] = exp2_fast(fmaf(s[n][e], log2_scale, minus));
          sum += s[n][e];
        }
      l[h] = l[h] * shrink + sum;
#pragma unroll
      for (int n = 0; n < D / 8; n++) o[n][2 * h] *= shrink, o[n][2 * h + 1] *= shrink;
    }
    uint32_t p[KEYS / 16][4];
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) as_left(p[j], s[2 * j], s[2 * j + 1]);
    wgmma_begin(o);
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++)
      wgmma_tile(o, p[j], descriptor(shared_address(values) + j * (16 * 128), KEYS * 128));
    wgmma_end(o);
  }

  block = query_block<QUERIES>(q_offsets, kv_offsets, forgotten(blockIdx.y), forgotten(blockIdx.z));
  valid = block.valid;
  // The queries' place takes the output, in forward.cu's layout: since the loop's last barrier nobody reads them.
  float by[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float sum = row_sum(l[h]);
    by[h] = 1.0f / sum;
    int r = row + lane / 4 + 8 * h;
    if (lane % 4 == 0 && r < valid) lse[(size_t)head * tq + block.row() + r] = (m[h] * log2_scale + log2f(sum)) * LN_2;
  }
  store_rows<D>(queries, row, o, by);
  __syncwarp();
  out += ((size_t)block.row() * heads + head) * D;
  write_rows<D, 16>(out, stride, queries, row, valid);
#endif
}
}  // namespace

#define ENTRY(D)                                                                                     \
  KERNEL __launch_bounds__(THREADS, 2) attention_forward_90_d##D(                                    \
      const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse, const uint32_t* q_offsets, \
      const uint32_t* kv_offsets, int heads, int kv_heads, int tq, float log2_scale) {               \
    forward_90<D>(q, k, v, out, lse, q_offsets, kv_offsets, heads, kv_heads, tq, log2_scale);        \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
