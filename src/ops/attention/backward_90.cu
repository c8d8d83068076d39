// Attention, backward, for Hopper (sm_90a): all three gradients in one pass, by wgmma.
//
//   p = exp(scale q k^T - lse);  ds = p * (dout v^T - delta);  dv = p^T dout;  dk = scale ds^T q;  dq = scale ds k
//
// As backward_kv.cu, which says how dk and dv come about, but dq too: 5 products where the two kernels by mma.sync have
// 7. A block is 128 keys of one kv head, two warpgroups of 64. It walks over blocks of 64 queries, and with each over
// the query heads of the group. Scores are transposed (keys are rows), so that p^T and ds^T go into the products for dv
// and dk out of registers. For dq, which sums over all keys, ds^T goes into shared memory too: at D = 128 each
// warpgroup computes 64 columns of dq, at D = 64 one of them does, this step the one, next step the other.
//
// dq is summed over blocks of keys as one_pass.cuh says.
//
// In a step the products for p and dp are begun together, p is computed under dp's, ds under dv's, and the copy of dq
// is read under dv's and dk's. A turn is looked at as its step begins, and passed on in the middle of the next one, by
// when the writes have arrived.
//
// Shapes as in backward_kv.cu. With B = tq / 64 + sequences: `partial` heads x B x 64 x D f32, of a tile each thread's
// elements where that thread finds them; `turns` 1 + heads x B zeros. grid (kv_heads, sequences, blocks of 128 keys).
// 10 D operations a visible pair and query head. From and to L2 for 128 x 64 of them at D = 128: q, dout 32 KB, dq
// 32 KB read and 32 KB written, 107 operations a byte. Shared memory at D = 128: k, v 64 KB, q, dout 2 x 32 KB, ds
// 16 KB; with 255 registers one block to a multiprocessor. A short batch makes fewer blocks than there are
// multiprocessors: 2,048 tokens of 8 kv heads 128, the longest twice the mean.
//
// Not yet run on a card, so not the default (CLSGEN_ATTENTION_BACKWARD=one-pass asks for it): the emulation checks
// numbers, waits, fences and layouts as the PTX ISA describes them, one block after another.
#include "one_pass.cuh"
#include "panels.cuh"

namespace {
[[maybe_unused]] constexpr int KEYS = 128, QUERIES = 64, THREADS = 256;

// One step's queries.
template <int D>
struct Step {
  bf16 q[QUERIES * D], dout[QUERIES * D];
};

template <int D>
struct Memory {
  bf16 k[KEYS * D], v[KEYS * D];
  Step<D> steps[2];
  bf16 ds[KEYS * QUERIES];
  float lse[2][QUERIES], delta[2][QUERIES];
  uint32_t ticket;
};

// c = 64 rows of `a` times the rows of `b` over D columns, both in panels.
template <int D, int A_ROWS, int B_ROWS>
__device__ __forceinline__ void begin_scores(float (&c)[8][4], shared_t a, shared_t b) {
  wgmma_begin(c);
#pragma unroll
  for (int d = 0; d < D / 16; d++) {
    uint64_t left = descriptor(a + d / 4 * (A_ROWS * 128) + d % 4 * 32, 16);
    uint64_t right = descriptor(b + d / 4 * (B_ROWS * 128) + d % 4 * 32, 16);
    if (d == 0) wgmma_rows_first(c, left, right);
    else wgmma_rows(c, left, right);
  }
  wgmma_commit();
}

// c += left (64, 64; registers) times the 64 rows of `tile`.
template <int D>
__device__ __forceinline__ void begin_gradient(float (&c)[D / 8][4], const uint32_t (&left)[QUERIES / 16][4],
                                               shared_t tile) {
  wgmma_begin(c);
#pragma unroll
  for (int j = 0; j < QUERIES / 16; j++) wgmma_tile(c, left[j], descriptor(tile + j * (16 * 128), QUERIES * 128));
  wgmma_commit();
}

template <int D>
__device__ __forceinline__ void backward_90(
    const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v, const bf16* __restrict__ dout,
    const float* __restrict__ lse, const float* __restrict__ delta, bf16* __restrict__ dq, bf16* __restrict__ dk,
    bf16* __restrict__ dv, float4* partial, uint32_t* turns, const uint32_t* __restrict__ q_offsets,
    const uint32_t* __restrict__ kv_offsets, int heads, int kv_heads, int tq, float log2_scale) {
#ifdef HOPPER
  DYNAMIC_SHARED(memory);
  Memory<D>& shared = *reinterpret_cast<Memory<D>*>(panels_in(memory));
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

  auto load = [&](int step, Place at) {
    Step<D>& to = shared.steps[step & 1];
    int head = kv_head * group + at.head, rows = theirs.length - at.query, i = threadIdx.x % QUERIES;
    size_t row = (size_t)(theirs.start + at.query), from = (row * heads + head) * D, line = (size_t)head * tq + row;
    load_panels<D, QUERIES, THREADS>(to.q, q + from, stride, rows);
    load_panels<D, QUERIES, THREADS>(to.dout, dout + from, stride, rows);
    if (threadIdx.x < QUERIES) copy4(shared.lse[step & 1] + i, lse + line + i, i < rows);
    else if (threadIdx.x < 2 * QUERIES) copy4(shared.delta[step & 1] + i, delta + line + i, i < rows);
    copy_commit();
  };
  auto number_of = [&](Place at) {
    return tile_number<QUERIES>(kv_head * group + at.head, theirs.start + at.query, sequence, tq, sequences);
  };

  Place at = {end + (blocks - 1) * QUERIES, 0}, last = at;
  size_t from = ((size_t)(mine.start + first) * kv_heads + kv_head) * D;
  load_panels<D, KEYS, THREADS>(shared.k, k + from, kv_stride, valid);
  load_panels<D, KEYS, THREADS>(shared.v, v + from, kv_stride, valid);
  copy_commit();
  if (steps > 0) load(0, at);

  int lane = threadIdx.x & 31, row = threadIdx.x / 32 * 16, column = lane % 4 * 2;
  // The warpgroup's number: that of the whole warp, which the compiler is told so.
  int half = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  float grad_k[D / 8][4] = {}, grad_v[D / 8][4] = {};

  for (int step = 0; step < steps; step++) {
    // This step's queries are here, and everyone is done with the last step.
    copy_wait<0>();
    wgmma_see_shared();
    __syncthreads();
    const Step<D>& here = shared.steps[step & 1];
    float p[QUERIES / 8][4], ds[QUERIES / 8][4];
    begin_scores<D, KEYS, QUERIES>(p, shared_address(shared.k) + half * (64 * 128), shared_address(here.q));
    begin_scores<D, KEYS, QUERIES>(ds, shared_address(shared.v) + half * (64 * 128), shared_address(here.dout));

    if (step + 1 < steps) load(step + 1, at.next<QUERIES>(group));
    const uint32_t* turn = turns + number_of(at);
    if (block > 0 && threadIdx.x < 2 * D) turn_prefetch(partial + number_of(at) * (16 * D) + threadIdx.x * 8);
    uint32_t seen = threadIdx.x == 0 ? turn_peek(turn) : 0;
    if (threadIdx.x == 128 && step > 0) turn_pass(turns + number_of(last), block + 1);
    last = at;

    // The query that sees this warp's first key is number `diagonal` of the block.
    int diagonal = first + row - ahead - at.query, key = diagonal + lane / 4;
    wgmma_wait<1>(p);
#pragma unroll
    for (int n = 0; n < QUERIES / 8; n++) {
      float2 log = *reinterpret_cast<const float2*>(shared.lse[step & 1] + n * 8 + column);
#pragma unroll
      for (int e = 0; e < 4; e++) p[n][e] = exp2_fast(fmaf(p[n][e], log2_scale, (e % 2 ? log.y : log.x) * -LOG2_E));
    }
    if (diagonal + 15 > 0) {
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (n * 8 + column + e % 2 < key + e / 2 * 8) p[n][e] = 0.0f;
    }
    uint32_t left_p[QUERIES / 16][4], left_ds[QUERIES / 16][4];
#pragma unroll
    for (int j = 0; j < QUERIES / 16; j++) as_left(left_p[j], p[2 * j], p[2 * j + 1]);
    begin_gradient<D>(grad_v, left_p, shared_address(here.dout));

    wgmma_wait<1>(ds);
#pragma unroll
    for (int n = 0; n < QUERIES / 8; n++) {
      float2 mean = *reinterpret_cast<const float2*>(shared.delta[step & 1] + n * 8 + column);
#pragma unroll
      for (int e = 0; e < 4; e++) ds[n][e] = p[n][e] * (ds[n][e] - (e % 2 ? mean.y : mean.x));
    }
#pragma unroll
    for (int j = 0; j < QUERIES / 16; j++) {
      as_left(left_ds[j], ds[2 * j], ds[2 * j + 1]);
#pragma unroll
      for (int i = 0; i < 4; i++)
        wgmma_operand(shared.ds + panel_place<KEYS>(row + lane / 4 + i % 2 * 8, 2 * j + i / 2) + column, left_ds[j][i]);
    }
    begin_gradient<D>(grad_k, left_ds, shared_address(here.q));
    wgmma_see_shared();
    if (threadIdx.x == 0) turn_wait(turn, block, seen);
    // All of ds is here, and what earlier keys added to dq.
    __syncthreads();

    if (D == 128 || (step & 1) == half) {
      int panel = D == 128 ? half : 0;
      // A quarter of 64 rows and columns is a warp's: 8 x 32 lanes' 4 elements.
      float4* sums = partial + ((number_of(at) * (D / 64) + panel) * 4 + threadIdx.x / 32 % 4) * (8 * 32) + lane;
      float grad_q[8][4];
#pragma unroll
      for (int n = 0; n < 8; n++) {
        float4 x = block > 0 ? turn_load(sums + n * 32) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        grad_q[n][0] = x.x, grad_q[n][1] = x.y, grad_q[n][2] = x.z, grad_q[n][3] = x.w;
      }
      wgmma_begin(grad_q);
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++)
        wgmma_columns(grad_q, descriptor(shared_address(shared.ds) + j * (16 * 128), 16),
                      descriptor(shared_address(shared.k) + panel * (KEYS * 128) + j * (16 * 128), 16));
      wgmma_end(grad_q);
      if (first + KEYS < min(mine.length, at.query + QUERIES + ahead)) {
#pragma unroll
        for (int n = 0; n < 8; n++) turn_store(sums + n * 32, {grad_q[n][0], grad_q[n][1], grad_q[n][2], grad_q[n][3]});
      } else {
        int r = at.query + threadIdx.x / 32 % 4 * 16 + lane / 4;
        size_t head = (size_t)(theirs.start + r) * heads + kv_head * group + at.head;
        round_rows(dq + head * D + panel * 64 + column, stride, grad_q, log2_scale * LN_2, theirs.length - r);
      }
    }
    wgmma_wait<0>(grad_v);
    wgmma_wait<0>(grad_k);
    at = at.next<QUERIES>(group);
  }

  // The keys' and values' places take the gradients, in backward_kv.cu's layout: since this barrier nobody reads them.
  copy_wait<0>();
  __syncthreads();
  if (threadIdx.x == 128 && steps > 0) turn_pass(turns + number_of(last), block + 1);
  float scale = log2_scale * LN_2, by_scale[2] = {scale, scale}, by_one[2] = {1.0f, 1.0f};
  store_rows<D>(shared.k, row, grad_k, by_scale);
  store_rows<D>(shared.v, row, grad_v, by_one);
  __syncwarp();
  write_rows<D, 16>(dk + from, kv_stride, shared.k, row, valid);
  write_rows<D, 16>(dv + from, kv_stride, shared.v, row, valid);
#endif
}
}  // namespace

#define ENTRY(D)                                                                                                  \
  KERNEL __launch_bounds__(THREADS, 1) attention_backward_90_d##D(                                                \
      const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse, const float* delta,        \
      bf16* dq, bf16* dk, bf16* dv, float4* partial, uint32_t* turns, const uint32_t* q_offsets,                  \
      const uint32_t* kv_offsets, int heads, int kv_heads, int tq, float log2_scale) {                            \
    backward_90<D>(q, k, v, dout, lse, delta, dq, dk, dv, partial, turns, q_offsets, kv_offsets, heads, kv_heads, \
                   tq, log2_scale);                                                                               \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
