// Attention, forward: out = softmax(scale q k^T) v, causal, scores never leave the registers.
//
// FlashAttention-2 (arXiv 2307.08691), algorithm 1 with the loop over keys inside a block. Shapes: q, out (tq, heads,
// D); k, v (tk, kv_heads, D); lse (heads, tq) f32; D = 64 or 128. Sequences are concatenated: q_offsets, kv_offsets
// hold each one's first row and, last, the total. A sequence's queries are aligned with the END of its keys: query i
// sees keys 0..=kv_len - q_len + i.
//
// A block is 128 queries of one head of one sequence, 4 warps of 32 rows. It walks over blocks of 64 keys up to the
// diagonal, from the first key on: so a query's bits depend on its own keys only (a masked score adds an exact 0), not
// on where a cached prefix ends or who shares the batch. Keys and values each have one buffer and take turns: values
// arrive while q k^T is computed, the next keys while the softmax and p v are. That leaves two blocks to an SM of an
// A100 (64 KB shared memory at D = 128), and each hides the other's barriers. A warp of 32 rows reads every key and
// value fragment for two products, else shared memory would be the limit.
//
// grid (heads, blocks of 128 queries, sequences): heads that share keys run side by side, and of a sequence the blocks
// with many keys start first. Operations 4 D per visible pair (2 products); bytes from memory: q, out once, k, v once
// if L2 (40 MB) holds the heads under way; from L2 2 * 2 D bytes per key and 128 queries: 128 operations a byte.
#include "tile.cuh"

namespace {
constexpr int QUERIES = 128, KEYS = 64, THREADS = 128, ROWS = 32;

template <int D>
__device__ __forceinline__ void forward(const bf16* __restrict__ q, const bf16* __restrict__ k,
                                        const bf16* __restrict__ v, bf16* __restrict__ out, float* __restrict__ lse,
                                        const uint32_t* __restrict__ q_offsets, const uint32_t* __restrict__ kv_offsets,
                                        int heads, int kv_heads, int tq, float log2_scale) {
  DYNAMIC_SHARED(memory);
  bf16* queries = reinterpret_cast<bf16*>(memory);
  bf16 *keys = queries + QUERIES * D, *values = keys + KEYS * D;

  QueryBlock block = query_block<QUERIES>(q_offsets, kv_offsets, blockIdx.y, blockIdx.z);
  if (block.valid <= 0) return;
  int head = blockIdx.x, kv_head = head / (heads / kv_heads), stride = heads * D, kv_stride = kv_heads * D;
  int valid = block.valid, key_count = block.key_count();
  q += ((size_t)block.row() * heads + head) * D;
  k += ((size_t)block.theirs.start * kv_heads + kv_head) * D;
  v += ((size_t)block.theirs.start * kv_heads + kv_head) * D;

  load_tile<D, QUERIES, THREADS>(queries, q, stride, valid);
  load_tile<D, KEYS, THREADS>(keys, k, kv_stride, key_count);
  copy_commit();

  int lane = threadIdx.x & 31, row = threadIdx.x / 32 * ROWS;
  auto left_q = Pointer<D>::down_first(queries, row), right_k = Pointer<D>::right_first(keys),
       right_v = Pointer<D>::down_first(values);
  float o[2][D / 8][4] = {}, m[2][2], l[2][2] = {};
#pragma unroll
  for (int i = 0; i < 2; i++) m[i][0] = m[i][1] = -INFINITY;

  // For the mask, both to be added to the keys still to come: the last key this thread's first element sees, counted
  // from its own column; how many keys its warp's last row sees.
  int first_seen = row + lane / 4 - lane % 4 * 2 - valid, last_row = row + ROWS - valid;
  // `left` keys are still to come; of these row r sees the keys 0..=left - valid + r.
  for (int left = key_count; left > 0; left -= KEYS) {
    // This block's keys are here, and everyone is done with the last block's values.
    copy_wait<0>();
    __syncthreads();
    load_tile<D, KEYS, THREADS>(values, v, kv_stride, left);
    copy_commit();
    v += (size_t)KEYS * kv_stride;

    float s[2][KEYS / 8][4] = {};
#pragma unroll
      for (int d = 0; d < D / 16; d++) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) ldmatrix(a[i], left_q.at(16 * i, d));
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
          uint32_t b[4];
          ldmatrix(b, right_k.at(n * 8, d));
#pragma unroll
          for (int i = 0; i < 2; i++) {
            mma(s[i][n], a[i], b[0], b[1]);
            mma(s[i][n + 1], a[i], b[2], b[3]);
          }
        }
      }
    // The values are here, and everyone is done with these keys.
    copy_wait<0>();
    __syncthreads();
    if (left > KEYS) {
      k += (size_t)KEYS * kv_stride;
      load_tile<D, KEYS, THREADS>(keys, k, kv_stride, left - KEYS);
      copy_commit();
    }

    // Of the last blocks of keys a warp's rows may see none.
    if (left + last_row <= 0) continue;
    int seen = left + first_seen;
    if (KEYS - 7 > seen) {
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (n * 8 + e % 2 - 16 * i - e / 2 * 8 > seen) s[i][n][e] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float top = m[i][h];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[i][n][2 * h], s[i][n][2 * h + 1]));
        top = row_max(top);
        float shrink = exp2_fast((m[i][h] - top) * log2_scale), minus = -top * log2_scale, sum = 0.0f;
        m[i][h] = top;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; e++) {
            s[i][n][e] = exp2_fast(fmaf(s[i][n][e], log2_scale, minus));
            sum += s[i][n][e];
          }
        l[i][h] = l[i][h] * shrink + sum;
#pragma unroll
        for (int n = 0; n < D / 8; n++) o[i][n][2 * h] *= shrink, o[i][n][2 * h + 1] *= shrink;
      }
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) {
      uint32_t p[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) as_left(p[i], s[i][2 * j], s[i][2 * j + 1]);
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        uint32_t b[4];
        ldmatrix_transposed(b, right_v.at(16 * j, n));
#pragma unroll
        for (int i = 0; i < 2; i++) {
          mma(o[i][2 * n], p[i], b[0], b[1]);
          mma(o[i][2 * n + 1], p[i], b[2], b[3]);
        }
      }
    }
  }

  // Where the output goes is found anew: kept through the loop it would cost a register that is not there.
  block = query_block<QUERIES>(q_offsets, kv_offsets, forgotten(blockIdx.y), forgotten(blockIdx.z));
  valid = block.valid;
  // The queries' place takes it: only their own warp reads these rows.
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float by[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float sum = row_sum(l[i][h]);
      by[h] = 1.0f / sum;
      int r = row + 16 * i + lane / 4 + 8 * h;
      if (lane % 4 == 0 && r < valid)
        lse[(size_t)head * tq + block.row() + r] = (m[i][h] * log2_scale + log2f(sum)) * LN_2;
    }
    store_rows<D>(queries, row + 16 * i, o[i], by);
  }
  __syncwarp();
  out += ((size_t)block.row() * heads + head) * D;
  write_rows<D, ROWS>(out, stride, queries, row, valid);
}
}  // namespace

#define ENTRY(D)                                                                                                       \
  KERNEL __launch_bounds__(THREADS, 2)                                                                                 \
      attention_forward_d##D(const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse,                       \
                             const uint32_t* q_offsets, const uint32_t* kv_offsets, int heads, int kv_heads, int tq,   \
                             float log2_scale) {                                                                       \
    forward<D>(q, k, v, out, lse, q_offsets, kv_offsets, heads, kv_heads, tq, log2_scale);                             \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
