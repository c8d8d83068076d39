// Attention, backward, for every card: all three gradients in one pass, by mma.sync.
//
//   p = exp(scale q k^T - lse);  ds = p * (dout v^T - delta);  dv = p^T dout;  dk = scale ds^T q;  dq = scale ds k
//
// FlashAttention-2 (arXiv 2307.08691), algorithm 2, with the sums of dq in a fixed order (one_pass.cuh) where it adds
// by atomics: 5 products where backward_kv.cu and backward_q.cu have 7, and each score and its exponential once. What
// the two have instead is no f32 copy of dq to read and write.
//
// A block is 128 keys of one kv head, 8 warps of 16 keys. It walks over blocks of queries (32 at D = 128, 64 at 64),
// and with each over the query heads of the group. Scores are transposed (keys are rows), so that p^T and ds^T go into
// the products for dv and dk out of registers. For dq, which sums over all keys, ds^T goes into shared memory too: a
// warp computes 16 queries and 32 channels of dq from it.
//
// q, lse and delta of the next step are copied while this one is computed, dout under the products for dk and dq: the
// others are done with it when ds is there. So it all fits into the 99 KB of a card of 8.6 or 8.9: at D = 128 k, v
// 64 KB, q 2 x 8 KB, dout 8 KB, ds 8 KB, at D = 64 k, v 32 KB, q 2 x 8 KB, dout 8 KB, ds 16 KB.
//
// Shapes as in backward_kv.cu. With B = tq / QUERIES + sequences: `partial` heads x B x QUERIES x D f32, of a tile each
// thread's elements where that thread finds them; `turns` 1 + heads x B zeros. grid (kv_heads, sequences, blocks of 128
// keys). 10 D operations a visible pair and query head.
//
// Not yet run on a card, so not the default (CLSGEN_ATTENTION_BACKWARD=one-pass asks for it, on a Hopper card beside
// CLSGEN_ATTENTION=mma): the emulation checks numbers, waits and layouts, one block after another.
#include "one_pass.cuh"

namespace {
constexpr int KEYS = 128, THREADS = 256;

template <int D>
struct Memory {
  static constexpr int QUERIES = 4096 / D;
  bf16 k[KEYS * D], v[KEYS * D];
  // Two steps' queries.
  bf16 q[2][QUERIES * D];
  bf16 dout[QUERIES * D];
  // (keys, queries).
  bf16 ds[KEYS * QUERIES];
  float lse[2][QUERIES], delta[2][QUERIES];
  uint32_t ticket;
};

template <int D>
__device__ __forceinline__ void backward_80(
    const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v, const bf16* __restrict__ dout,
    const float* __restrict__ lse, const float* __restrict__ delta, bf16* __restrict__ dq, bf16* __restrict__ dk,
    bf16* __restrict__ dv, float4* partial, uint32_t* turns, const uint32_t* __restrict__ q_offsets,
    const uint32_t* __restrict__ kv_offsets, int heads, int kv_heads, int tq, float log2_scale) {
  constexpr int QUERIES = Memory<D>::QUERIES;
  DYNAMIC_SHARED(memory);
  Memory<D>& shared = *reinterpret_cast<Memory<D>*>(memory);
  if (threadIdx.x == 0) shared.ticket = ticket(turns);
  turns++;
  __syncthreads();
  int number = (int)shared.ticket, sequences = (int)gridDim.y, sequence = number / kv_heads % sequences;
  int kv_head = number % kv_heads, block = number / kv_heads / sequences;

  Span mine = span(kv_offsets, sequence), theirs = span(q_offsets, sequence);
  int first = block * KEYS, valid = min(KEYS, mine.length - first);
  if (valid <= 0) return;
  int group = heads / kv_heads, stride = heads * D, kv_stride = kv_heads * D;
  // Key j is seen by the queries from j - ahead on; the walk ends at the block of the first that sees any of these.
  int ahead = mine.length - theirs.length, end = max(0, first - ahead) / QUERIES * QUERIES;
  int blocks = max(0, (theirs.length - end + QUERIES - 1) / QUERIES), steps = blocks * group;

  auto load_q = [&](int step, Place at) {
    int head = kv_head * group + at.head, rows = theirs.length - at.query, i = threadIdx.x % QUERIES;
    size_t row = (size_t)(theirs.start + at.query), line = (size_t)head * tq + row;
    load_tile<D, QUERIES, THREADS>(shared.q[step & 1], q + (row * heads + head) * D, stride, rows);
    if (threadIdx.x < QUERIES) copy4(shared.lse[step & 1] + i, lse + line + i, i < rows);
    else if (threadIdx.x < 2 * QUERIES) copy4(shared.delta[step & 1] + i, delta + line + i, i < rows);
    copy_commit();
  };
  auto load_dout = [&](Place at) {
    size_t row = (size_t)(theirs.start + at.query), head = kv_head * group + at.head;
    load_tile<D, QUERIES, THREADS>(shared.dout, dout + (row * heads + head) * D, stride, theirs.length - at.query);
    copy_commit();
  };
  auto number_of = [&](Place at) {
    return tile_number<QUERIES>(kv_head * group + at.head, theirs.start + at.query, sequence, tq, sequences);
  };

  Place at = {end + (blocks - 1) * QUERIES, 0}, last = at;
  size_t from = ((size_t)(mine.start + first) * kv_heads + kv_head) * D;
  load_tile<D, KEYS, THREADS>(shared.k, k + from, kv_stride, valid);
  load_tile<D, KEYS, THREADS>(shared.v, v + from, kv_stride, valid);
  copy_commit();
  if (steps > 0) load_q(0, at), load_dout(at);

  int lane = threadIdx.x & 31, warp = threadIdx.x / 32, row = warp * 16, column = lane % 4 * 2;
  auto left_k = Pointer<D>::down_first(shared.k, row), left_v = Pointer<D>::down_first(shared.v, row);
  auto down_dout = Pointer<D>::down_first(shared.dout), right_dout = Pointer<D>::right_first(shared.dout);
  // This warp's part of dq.
  int queries = warp % (QUERIES / 16) * 16, channels = warp / (QUERIES / 16) * 32;
  auto left_ds = Pointer<QUERIES>::right_first(shared.ds, queries / 8);
  auto down_k = Pointer<D>::down_first(shared.k, 0, channels / 8);
  float grad_k[D / 8][4] = {}, grad_v[D / 8][4] = {};

  for (int step = 0; step < steps; step++) {
    // This step's queries are here, and everyone is done with the last step.
    copy_wait<0>();
    __syncthreads();
    Place next = at.next<QUERIES>(group);
    if (step + 1 < steps) load_q(step + 1, next);
    const uint32_t* turn = turns + number_of(at);
    float4* sums = partial + number_of(at) * (QUERIES * D / 4);
    // A tile is 128 times 128 bytes.
    if (block > 0 && threadIdx.x < 128) turn_prefetch(sums + threadIdx.x * 8);
    uint32_t seen = threadIdx.x == 0 ? turn_peek(turn) : 0;
    if (threadIdx.x == 32 && step > 0) turn_pass(turns + number_of(last), block + 1);
    last = at;

    const bf16* here = shared.q[step & 1];
    auto down_q = Pointer<D>::down_first(here), right_q = Pointer<D>::right_first(here);
    float ds[QUERIES / 8][4] = {};
    // The query that sees this warp's first key is number `diagonal` of the block; else ds is 0.
    int diagonal = first + row - ahead - at.query, key = diagonal + lane / 4;
    if (diagonal < QUERIES) {
      float p[QUERIES / 8][4] = {};
      times_rows<D>(p, [&](uint32_t(&a)[4], int d) { ldmatrix(a, left_k.at(0, d)); }, right_q);
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n++) {
        float2 log = *reinterpret_cast<const float2*>(shared.lse[step & 1] + n * 8 + column);
#pragma unroll
        for (int e = 0; e < 4; e++) {
          float x = exp2_fast(fmaf(p[n][e], log2_scale, (e % 2 ? log.y : log.x) * -LOG2_E));
          p[n][e] = n * 8 + column + e % 2 >= key + e / 2 * 8 ? x : 0.0f;
        }
      }
      times_tile<D>(grad_v, p, down_dout);
      times_rows<D>(ds, [&](uint32_t(&a)[4], int d) { ldmatrix(a, left_v.at(0, d)); }, right_dout);
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n++) {
        float2 mean = *reinterpret_cast<const float2*>(shared.delta[step & 1] + n * 8 + column);
#pragma unroll
        for (int e = 0; e < 4; e++) ds[n][e] = p[n][e] * (ds[n][e] - (e % 2 ? mean.y : mean.x));
      }
    }
    store_rows<QUERIES>(shared.ds, row, ds, {1.0f, 1.0f});
    if (threadIdx.x == 0) turn_wait(turn, block, seen);
    // All of ds is here, nobody reads dout any more, and what earlier keys added to dq is here.
    __syncthreads();
    if (step + 1 < steps) load_dout(next);
    if (diagonal < QUERIES) times_tile<D>(grad_k, ds, down_q);

    float grad_q[4][4];
#pragma unroll
    for (int n = 0; n < 4; n++) {
      float4 x = block > 0 ? turn_load(sums + n * THREADS + threadIdx.x) : float4{0.0f, 0.0f, 0.0f, 0.0f};
      grad_q[n][0] = x.x, grad_q[n][1] = x.y, grad_q[n][2] = x.z, grad_q[n][3] = x.w;
    }
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) {
      uint32_t left[4];
      ldmatrix_transposed(left, left_ds.at(16 * j, 0));
#pragma unroll
      for (int n = 0; n < 2; n++) {
        uint32_t b[4];
        ldmatrix_transposed(b, down_k.at(16 * j, n));
        mma(grad_q[2 * n], left, b[0], b[1]);
        mma(grad_q[2 * n + 1], left, b[2], b[3]);
      }
    }
    if (first + KEYS < min(mine.length, at.query + QUERIES + ahead)) {
#pragma unroll
      for (int n = 0; n < 4; n++)
        turn_store(sums + n * THREADS + threadIdx.x, {grad_q[n][0], grad_q[n][1], grad_q[n][2], grad_q[n][3]});
    } else {
      int r = at.query + queries + lane / 4;
      size_t head = (size_t)(theirs.start + r) * heads + kv_head * group + at.head;
      round_rows(dq + head * D + channels + column, stride, grad_q, log2_scale * LN_2, theirs.length - r);
    }
    at = next;
  }

  // The keys' and values' places take the gradients: since this barrier nobody reads them.
  copy_wait<0>();
  __syncthreads();
  if (threadIdx.x == 32 && steps > 0) turn_pass(turns + number_of(last), block + 1);
  float scale = log2_scale * LN_2;
  store_rows<D>(shared.k, row, grad_k, {scale, scale});
  store_rows<D>(shared.v, row, grad_v, {1.0f, 1.0f});
  __syncwarp();
  write_rows<D, 16>(dk + from, kv_stride, shared.k, row, valid);
  write_rows<D, 16>(dv + from, kv_stride, shared.v, row, valid);
}
}  // namespace

#define ENTRY(D)                                                                                                  \
  KERNEL __launch_bounds__(THREADS) attention_backward_80_d##D(                                                   \
      const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse, const float* delta,        \
      bf16* dq, bf16* dk, bf16* dv, float4* partial, uint32_t* turns, const uint32_t* q_offsets,                  \
      const uint32_t* kv_offsets, int heads, int kv_heads, int tq, float log2_scale) {                            \
    backward_80<D>(q, k, v, dout, lse, delta, dq, dk, dv, partial, turns, q_offsets, kv_offsets, heads, kv_heads, \
                   tq, log2_scale);                                                                               \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
