// Attention, backward: the gradient of queries.
//
//   p = exp(scale q k^T - lse);  ds = p * (dout v^T - delta);  dq = scale ds k
//
// The other half of backward_kv.cu (which says why there are two): a block owns 128 queries of one head of one
// sequence, 8 warps of 16 rows, and walks over blocks of 64 keys up to the diagonal; keys and values of the next step
// are copied while this one is computed. The warp's rows of q and dout stay in registers, as the left operands they are
// (4 D / 16 each), so that shared memory serves keys and values alone: 64 KB at D = 128, which the 128 rows of q and
// dout just fill on their way into registers.
//
// Shapes and grid as in forward.cu. Operations 6 D per visible pair (3 products).
#include "tile.cuh"

namespace {
constexpr int QUERIES = 128, KEYS = 64, THREADS = 256;

template <int D>
__device__ __forceinline__ void backward_q(const bf16* __restrict__ q, const bf16* __restrict__ k,
                                           const bf16* __restrict__ v, const bf16* __restrict__ dout,
                                           const float* __restrict__ lse, const float* __restrict__ delta,
                                           bf16* __restrict__ dq, const uint32_t* __restrict__ q_offsets,
                                           const uint32_t* __restrict__ kv_offsets, int heads, int kv_heads, int tq,
                                           float log2_scale) {
  DYNAMIC_SHARED(memory);
  // Two steps' keys and values, one after another.
  bf16* tiles = reinterpret_cast<bf16*>(memory);

  QueryBlock block = query_block<QUERIES>(q_offsets, kv_offsets, blockIdx.y, blockIdx.z);
  if (block.valid <= 0) return;
  int head = blockIdx.x, kv_head = head / (heads / kv_heads), stride = heads * D, kv_stride = kv_heads * D;
  int valid = block.valid, key_count = block.key_count();
  size_t at = ((size_t)block.row() * heads + head) * D;
  k += ((size_t)block.theirs.start * kv_heads + kv_head) * D;
  v += ((size_t)block.theirs.start * kv_heads + kv_head) * D;

  int lane = threadIdx.x & 31, row = threadIdx.x / 32 * 16;
  uint32_t left_q[D / 16][4], left_dout[D / 16][4];
  load_tile<D, QUERIES, THREADS>(tiles, q + at, stride, valid);
  load_tile<D, QUERIES, THREADS>(tiles + QUERIES * D, dout + at, stride, valid);
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  auto from_q = Pointer<D>::down_first(tiles, row), from_dout = Pointer<D>::down_first(tiles + QUERIES * D, row);
#pragma unroll
  for (int d = 0; d < D / 16; d++) {
    ldmatrix(left_q[d], from_q.at(0, d));
    ldmatrix(left_dout[d], from_dout.at(0, d));
  }
  float minus_lse[2], mean[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int r = row + lane / 4 + 8 * h;
    size_t number = (size_t)head * tq + block.row() + r;
    minus_lse[h] = r < valid ? lse[number] * -LOG2_E : 0.0f;
    mean[h] = r < valid ? delta[number] : 0.0f;
  }
  __syncthreads();

  auto load = [&](int step, int left) {
    bf16* to = tiles + step % 2 * 2 * KEYS * D;
    load_tile<D, KEYS, THREADS>(to, k, kv_stride, left);
    load_tile<D, KEYS, THREADS>(to + KEYS * D, v, kv_stride, left);
    copy_commit();
    k += (size_t)KEYS * kv_stride;
    v += (size_t)KEYS * kv_stride;
  };
  load(0, key_count);

  float grad[D / 8][4] = {};
  // Of the `left` keys still to come, row r sees 0..=left - valid + r.
  int step = 0;
  for (int left = key_count; left > 0; left -= KEYS, step++) {
    if (left > KEYS) {
      load(step + 1, left - KEYS);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    int seen = left - valid + row;
    if (seen + 15 >= 0) {
      const bf16 *keys = tiles + step % 2 * 2 * KEYS * D, *values = keys + KEYS * D;
      float p[KEYS / 8][4] = {}, ds[KEYS / 8][4] = {};
      times_rows<D>(p, [&](uint32_t(&a)[4], int d) {
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = left_q[d][i];
      }, Pointer<D>::right_first(keys));
      times_rows<D>(ds, [&](uint32_t(&a)[4], int d) {
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = left_dout[d][i];
      }, Pointer<D>::right_first(values));
      int last = seen + lane / 4 - lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          float x = exp2_fast(fmaf(p[n][e], log2_scale, minus_lse[e / 2]));
          x = n * 8 + e % 2 - e / 2 * 8 > last ? 0.0f : x;
          ds[n][e] = x * (ds[n][e] - mean[e / 2]);
        }
      times_tile<D>(grad, ds, Pointer<D>::down_first(keys));
    }
    __syncthreads();
  }

  float scale = log2_scale * LN_2, by[2] = {scale, scale};
  store_rows<D>(tiles, row, grad, by);
  __syncwarp();
  write_rows<D, 16>(dq + at, stride, tiles, row, valid);
}
}  // namespace

#define ENTRY(D)                                                                                                       \
  KERNEL __launch_bounds__(THREADS)                                                                                    \
      attention_backward_q_d##D(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,       \
                                const float* delta, bf16* dq, const uint32_t* q_offsets, const uint32_t* kv_offsets,   \
                                int heads, int kv_heads, int tq, float log2_scale) {                                   \
    backward_q<D>(q, k, v, dout, lse, delta, dq, q_offsets, kv_offsets, heads, kv_heads, tq, log2_scale);              \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
