// Attention, backward: the gradients of keys and values.
//
//   p = exp(scale q k^T - lse);  ds = p * (dout v^T - delta);  dv = p^T dout;  dk = scale ds^T q
//
// FlashAttention-2 (arXiv 2307.08691), algorithm 2, without its atomic additions to dq: those make the bits depend on
// which block comes first. Here a second kernel (backward_q.cu) computes p and ds again for dq. That costs 7 products
// where 5 would do (40 % more operations), and buys: the same bits in every run, no f32 copy of dq (4 D bytes per row
// and head, written and read), no order among blocks. dk, dv of a kv head are summed here over its query heads, first
// head first, in registers.
//
// A block is 128 keys of one kv head of one sequence, 8 warps of 16 keys. It holds its keys and values in shared memory
// and walks over the query heads of the group and, for each, blocks of 64 queries from the diagonal on; q, dout, lse,
// delta of the next step are copied while this one is computed. Scores are computed transposed (keys are rows): so the
// accumulators of p^T and ds^T are, rounded, the left operands of the next products and never leave the registers.
//
// Shapes as in forward.cu; dout as q; dk, dv as k; delta as lse. grid (kv_heads, blocks of 128 keys, sequences): the
// first keys, which most queries see, start first. Shared memory at D = 128: k, v 64 KB, q, dout 2 x 32 KB, lse, delta
// 1 KB. Cards of 8.6 and 8.9 have no more than 99 KB: there D = 128 takes 32 queries at a time, 96.5 KB. Operations
// 8 D per visible pair and query head (4 products).
#include "tile.cuh"

namespace {
constexpr int KEYS = 128, THREADS = 256;

// One step's queries.
template <int D, int QUERIES>
struct Step {
  bf16 q[QUERIES * D], dout[QUERIES * D];
  float lse[QUERIES], delta[QUERIES];
};

template <int D, int QUERIES>
struct Memory {
  bf16 k[KEYS * D], v[KEYS * D];
  Step<D, QUERIES> steps[2];
};

template <int D, int QUERIES>
__device__ __forceinline__ void backward_kv(
    const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v, const bf16* __restrict__ dout,
    const float* __restrict__ lse, const float* __restrict__ delta, bf16* __restrict__ dk, bf16* __restrict__ dv,
    const uint32_t* __restrict__ q_offsets, const uint32_t* __restrict__ kv_offsets, int heads, int kv_heads, int tq,
    float log2_scale) {
  DYNAMIC_SHARED(memory);
  Memory<D, QUERIES>& shared = *reinterpret_cast<Memory<D, QUERIES>*>(memory);

  Span mine = span(kv_offsets, blockIdx.z), theirs = span(q_offsets, blockIdx.z);
  int first = blockIdx.y * KEYS, valid = min(KEYS, mine.length - first);
  if (valid <= 0) return;
  int kv_head = blockIdx.x, group = heads / kv_heads, stride = heads * D, kv_stride = kv_heads * D;
  size_t at = ((size_t)(mine.start + first) * kv_heads + kv_head) * D;
  // Key j is seen by the queries from j - ahead on; the walk begins at the block of the first that sees any of these.
  int ahead = mine.length - theirs.length;
  int begin = max(0, first - ahead) / QUERIES * QUERIES;
  int blocks = max(0, (theirs.length - begin + QUERIES - 1) / QUERIES), steps = blocks * group;

  auto load = [&](int step) {
    Step<D, QUERIES>& to = shared.steps[step & 1];
    int head = kv_head * group + step / blocks, query = begin + step % blocks * QUERIES;
    size_t row = (size_t)(theirs.start + query), from = (row * heads + head) * D, number = (size_t)head * tq + row;
    int rows = theirs.length - query, i = threadIdx.x % QUERIES;
    load_tile<D, QUERIES, THREADS>(to.q, q + from, stride, rows);
    load_tile<D, QUERIES, THREADS>(to.dout, dout + from, stride, rows);
    if (threadIdx.x < QUERIES) copy4(to.lse + i, lse + number + i, i < rows);
    else if (threadIdx.x < 2 * QUERIES) copy4(to.delta + i, delta + number + i, i < rows);
    copy_commit();
  };

  load_tile<D, KEYS, THREADS>(shared.k, k + at, kv_stride, valid);
  load_tile<D, KEYS, THREADS>(shared.v, v + at, kv_stride, valid);
  copy_commit();
  if (steps > 0) load(0);

  int lane = threadIdx.x & 31, row = threadIdx.x / 32 * 16;
  auto left_k = Pointer<D>::down_first(shared.k, row), left_v = Pointer<D>::down_first(shared.v, row);
  float grad_k[D / 8][4] = {}, grad_v[D / 8][4] = {};

  for (int step = 0; step < steps; step++) {
    if (step + 1 < steps) {
      load(step + 1);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    const Step<D, QUERIES>& here = shared.steps[step & 1];
    // The query that sees this warp's first key is number `diagonal` of the block.
    int diagonal = first + row - ahead - (begin + step % blocks * QUERIES);
    if (diagonal < QUERIES) {
      float p[QUERIES / 8][4] = {}, ds[QUERIES / 8][4] = {};
      auto down_q = Pointer<D>::down_first(here.q), down_dout = Pointer<D>::down_first(here.dout);
      auto right_q = Pointer<D>::right_first(here.q), right_dout = Pointer<D>::right_first(here.dout);

      times_rows<D>(p, [&](uint32_t(&a)[4], int d) { ldmatrix(a, left_k.at(0, d)); }, right_q);
      int key = diagonal + lane / 4, column = lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n++) {
        float2 log = *reinterpret_cast<const float2*>(here.lse + n * 8 + column);
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
        float2 mean = *reinterpret_cast<const float2*>(here.delta + n * 8 + column);
#pragma unroll
        for (int e = 0; e < 4; e++) ds[n][e] = p[n][e] * (ds[n][e] - (e % 2 ? mean.y : mean.x));
      }
      times_tile<D>(grad_k, ds, down_q);
    }
    // The step after next goes where this one lies.
    __syncthreads();
  }

  // The keys' and values' places take the gradients: only their own warp reads these rows. (Without a step, their
  // copies are still under way.)
  copy_wait<0>();
  __syncthreads();
  // Found anew: kept through the loop it would cost registers that are not there.
  mine = span(kv_offsets, forgotten(blockIdx.z));
  first = forgotten(blockIdx.y) * KEYS, valid = min(KEYS, mine.length - first);
  at = ((size_t)(mine.start + first) * kv_heads + forgotten(blockIdx.x)) * D;
  float scale = log2_scale * LN_2, by_scale[2] = {scale, scale}, by_one[2] = {1.0f, 1.0f};
  store_rows<D>(shared.k, row, grad_k, by_scale);
  store_rows<D>(shared.v, row, grad_v, by_one);
  __syncwarp();
  write_rows<D, 16>(dk + at, kv_stride, shared.k, row, valid);
  write_rows<D, 16>(dv + at, kv_stride, shared.v, row, valid);
}
}  // namespace

#define ENTRY(NAME, D, QUERIES)                                                                                     \
  KERNEL __launch_bounds__(THREADS) attention_backward_kv_##NAME(                                                  \
      const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse, const float* delta,         \
      bf16* dk, bf16* dv, const uint32_t* q_offsets, const uint32_t* kv_offsets, int heads, int kv_heads, int tq,  \
      float log2_scale) {                                                                                          \
    backward_kv<D, QUERIES>(q, k, v, dout, lse, delta, dk, dv, q_offsets, kv_offsets, heads, kv_heads, tq,         \
                            log2_scale);                                                                           \
  }
ENTRY(d64, 64, 64)
ENTRY(d128, 128, 64)
ENTRY(less_d128, 128, 32)
#undef ENTRY
