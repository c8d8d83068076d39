// Decode attention: one query a row against its cached keys and values, split along the sequence (Flash-Decoding, Dao
// et al. 2023).
//
// q (rows, heads, D); a row's keys are those of its blocks in the cache (decode.cuh). A thread block takes 256 keys of
// one kv head of one row for all query heads of that kv head (at most 16: the rows of one mma), so each key is read
// once. Its result, per query head: the maximum m of the scores (in powers of 2), l = sum 2^(s - m), o = sum 2^(s - m)
// v, f32; decode_merge.cu puts chunks together in order. Nothing depends on the batch or on what is shared: a row has
// the same bits alone and in any company.
//
// 4 warps take tiles of 16 keys in turn, each with its own maximum and sums, joined at the end in warp order. A warp
// copies its own tiles, the next while it computes this one, and never waits for another warp. A tile lies within one
// block of the cache, in one piece.
//
// grid (rows, kv_heads, chunks of the longest row): rows that share a prefix read the same keys at the same time, from
// L2. Bytes: 4 D per key and kv head once (k, v), and (D + 2) * 4 * group per chunk: 1.6 % more at D = 128, group 4.
// Operations: 4 D * group, on tensor cores whose other rows idle; memory is the limit. `offset` elements of a block are
// those of the layers before this one: one table of addresses serves them all.
#include "decode.cuh"

namespace {
constexpr int WARPS = 4, TILE = 16, MOST_HEADS = 16;

template <int D>
struct Memory {
  // Per warp two tiles of keys and values, one being copied; at the end the warp's o.
  union {
    bf16 tiles[2][2][TILE * D];
    float o[MOST_HEADS * D];
  } warps[WARPS];
  const bf16* blocks[CHUNK / BLOCK];
  float m[WARPS][MOST_HEADS], l[WARPS][MOST_HEADS];
};

template <int D>
__device__ __forceinline__ void copy_rows(bf16* tile, const bf16* from, int valid) {
  constexpr int CHUNKS = D / 8;
  // Computed anew for each tile: kept, its addresses would take some twenty registers.
  int lane = forgotten(threadIdx.x) & 31, c = lane % CHUNKS;
#pragma unroll
  for (int i = 0; i < TILE; i += 32 / CHUNKS) {
    int r = i + lane / CHUNKS;
    // Rows lie side by side: a lane's piece is the warp's lane-th.
    copy16(tile + place<D>(r, c), from + i * D + lane * 8, r < valid);
  }
}

template <int D>
__device__ __forceinline__ void decode(const bf16* __restrict__ q, const Row* __restrict__ rows,
                                       const bf16* const* __restrict__ blocks, float* __restrict__ partial_o,
                                       float2* __restrict__ partial_ml, int heads, int kv_heads, long long offset,
                                       float log2_scale) {
  DYNAMIC_SHARED(memory);
  Memory<D>& shared = *reinterpret_cast<Memory<D>*>(memory);
  int row = blockIdx.x, kv_head = blockIdx.y, first = blockIdx.z * CHUNK, group = heads / kv_heads;
  int count = min(CHUNK, (int)rows[row].length - first);
  if (count <= 0) return;

  // A block's part that is read: this head's keys in this layer.
  if (int i = threadIdx.x; i * BLOCK < count)
    shared.blocks[i] = blocks[rows[row].first + first / BLOCK + i] + offset + (long long)kv_head * (BLOCK * D);

  int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  // The group's queries as the left operand: head g of it is row g, the rest are zeros.
  const bf16* mine = q + ((size_t)row * heads + kv_head * group) * D;
  uint32_t left[D / 16][4];
#pragma unroll
  for (int d = 0; d < D / 16; d++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int head = lane / 4 + i % 2 * 8;
      const bf16* from = mine + head * D + d * 16 + i / 2 * 8 + lane % 4 * 2;
      left[d][i] = head < group ? *reinterpret_cast<const uint32_t*>(from) : 0;
    }
  __syncthreads();

  auto load = [&](int tile) {
    bf16(*to)[TILE * D] = shared.warps[warp].tiles[tile / WARPS & 1];
    const bf16* keys = shared.blocks[tile * TILE / BLOCK] + tile * TILE % BLOCK * D;
    copy_rows<D>(to[0], keys, count - tile * TILE);
    copy_rows<D>(to[1], keys + kv_heads * (BLOCK * D), count - tile * TILE);
    copy_commit();
  };
  float o[D / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {};
  if (warp * TILE < count) load(warp);
  for (int tile = warp; tile * TILE < count; tile += WARPS) {
    if ((tile + WARPS) * TILE < count) {
      load(tile + WARPS);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncwarp();
    const bf16(*here)[TILE * D] = shared.warps[warp].tiles[tile / WARPS & 1];
    float s[2][4] = {};
    times_rows<D>(s, [&](uint32_t(&a)[4], int d) {
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = left[d][i];
    }, Pointer<D>::right_first(here[0]));
    int last = count - 1 - tile * TILE - lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float top = m[h];
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) {
          s[n][e] = n * 8 + e % 2 <= last ? s[n][e] * log2_scale : -INFINITY;
          top = fmaxf(top, s[n][e]);
        }
      top = row_max(top);
      float shrink = exp2_fast(m[h] - top);
      m[h] = top, l[h] *= shrink;
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) l[h] += s[n][e] = exp2_fast(s[n][e] - top);
#pragma unroll
      for (int n = 0; n < D / 8; n++) o[n][2 * h] *= shrink, o[n][2 * h + 1] *= shrink;
    }
    times_tile<D>(o, s, Pointer<D>::down_first(here[1]));
    // The tile after next goes where this one lies.
    __syncwarp();
  }

#pragma unroll
  for (int h = 0; h < 2; h++) {
    int head = lane / 4 + 8 * h;
    float sum = row_sum(l[h]);
    if (lane % 4 == 0) shared.m[warp][head] = m[h], shared.l[warp][head] = sum;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<float2*>(&shared.warps[warp].o[head * D + n * 8 + lane % 4 * 2]) =
          make_float2(o[n][2 * h], o[n][2 * h + 1]);
  }
  __syncthreads();

  size_t to = ((size_t)row * heads + kv_head * group) * gridDim.z + blockIdx.z;
  for (int i = threadIdx.x; i < group * D; i += WARPS * 32) {
    int head = i / D;
    // The first warp always has a key; one without has m = -inf and adds 0.
    float top = shared.m[0][head], sum = 0.0f, value = 0.0f;
#pragma unroll
    for (int w = 1; w < WARPS; w++) top = fmaxf(top, shared.m[w][head]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      float weight = exp2_fast(shared.m[w][head] - top);
      sum += weight * shared.l[w][head];
      value += weight * shared.warps[w].o[i];
    }
    partial_o[(to + (size_t)head * gridDim.z) * D + i % D] = value;
    if (i % D == 0) partial_ml[to + (size_t)head * gridDim.z] = make_float2(top, sum);
  }
}
}  // namespace

#define ENTRY(D)                                                                                                       \
  KERNEL __launch_bounds__(WARPS * 32)                                                                                 \
      attention_decode_d##D(const bf16* q, const Row* rows, const bf16* const* blocks, float* partial_o,               \
                            float2* partial_ml, int heads, int kv_heads, long long offset, float log2_scale) {         \
    decode<D>(q, rows, blocks, partial_o, partial_ml, heads, kv_heads, offset, log2_scale);                            \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
