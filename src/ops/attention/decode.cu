// Decode attention: one query a row against its cached keys and values, split along the sequence (Flash-Decoding, Dao
// et al. 2023).
//
// q (rows, heads, D); a row's keys are those of its blocks in the cache (decode.cuh). A thread block takes a chunk, 256
// keys of one kv head, for all query heads of that kv head (at most 16) of one row, or of several rows that have this
// chunk of the same blocks (samples of one prompt): 16 queries are the rows of one mma, and a block has ROW_TILES times
// as many. So each key is read once for them all. The result, per query: the maximum m of the scores (in powers of 2),
// l = sum 2^(s - m), o = sum 2^(s - m) v, f32; decode_merge.cu puts chunks together in order. A query is a row of an
// mma by itself and chunks are cut at the row's own positions: nothing depends on the batch or on what is shared, a row
// has the same bits alone and in any company.
//
// 4 warps take tiles of 16 keys in turn, each with its own maximum and sums, joined at the end in warp order. A warp
// copies its own tiles, the next while it computes this one, and never waits for another warp. A tile lies within one
// block of the cache, in one piece.
//
// attention_decode: ROW_TILES 1, grid (rows, kv_heads, chunks of the longest row); rows that share a prefix read the
// same keys at the same time, from L2. attention_decode_shared: ROW_TILES 2, grid (items, kv_heads), the items in the
// order of their chunks (shared.rs). Not yet run on a card, so not the default (CLSGEN_DECODE=shared asks for it).
//
// Bytes: 4 D per key and kv head once (k, v), and (D + 2) * 4 * group per chunk: 1.6 % more at D = 128, group 4.
// Operations: 4 D * group, on tensor cores whose other rows idle; memory is the limit. 32 rows of one prompt, group 4:
// a chunk is read 4 times, not 32, all but the first from L2. `offset` elements of a block are those of the layers
// before this one: one table of addresses serves them all.
#include "decode.cuh"

namespace {
constexpr int WARPS = 4, TILE = 16, MMA_ROWS = 16;

template <int D, int ROW_TILES>
struct Memory {
  static constexpr int QUERIES = ROW_TILES * MMA_ROWS;
  // Per warp two tiles of keys and values, one being copied; at the end the warp's o.
  union {
    bf16 tiles[2][2][TILE * D];
    float o[QUERIES * D];
  } warps[WARPS];
  const bf16* blocks[CHUNK / BLOCK];
  // Each query's number among those of all rows.
  uint32_t numbers[QUERIES];
  float m[WARPS][QUERIES], l[WARPS][QUERIES];
};

// What a thread block works on: a chunk of `rows` rows, `members` or, without these, the grid's.
struct Work {
  int chunk, chunks, rows;
  const uint32_t* members;
  __device__ __forceinline__ uint32_t row(int i) const { return members ? members[i] : blockIdx.x; }
};

// Where a query's channel `c` lies in its warp's o. The lanes of a warp write 8 channels of 8 queries at once: these
// lie in different banks.
template <int D>
__device__ __forceinline__ int place_of_o(int query, int c) {
  return query * D + (c ^ (query & 7) * 8);
}

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

template <int D, int ROW_TILES>
__device__ __forceinline__ void decode(const Work& work, const bf16* __restrict__ q, const Row* __restrict__ rows,
                                       const bf16* const* __restrict__ blocks, float* __restrict__ partial_o,
                                       float2* __restrict__ partial_ml, int heads, int kv_heads, long long offset,
                                       float log2_scale) {
  DYNAMIC_SHARED(memory);
  auto& shared = *reinterpret_cast<Memory<D, ROW_TILES>*>(memory);
  int kv_head = blockIdx.y, group = heads / kv_heads, queries = work.rows * group;
  // Of the members the first tells: the others' keys are the same.
  Row row = rows[work.row(0)];
  int count = min(CHUNK, (int)row.length - work.chunk * CHUNK);
  if (count <= 0) return;

  // A block's part that is read: this head's keys in this layer.
  if (int i = threadIdx.x; i * BLOCK < count)
    shared.blocks[i] = blocks[row.first + work.chunk * (CHUNK / BLOCK) + i] + offset + (long long)kv_head * (BLOCK * D);
  if (int i = threadIdx.x; i < queries) shared.numbers[i] = work.row(i / group) * heads + kv_head * group + i % group;
  int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  __syncthreads();

  auto load = [&](int tile) {
    bf16(*to)[TILE * D] = shared.warps[warp].tiles[tile / WARPS & 1];
    const bf16* keys = shared.blocks[tile * TILE / BLOCK] + tile * TILE % BLOCK * D;
    copy_rows<D>(to[0], keys, count - tile * TILE);
    copy_rows<D>(to[1], keys + kv_heads * (BLOCK * D), count - tile * TILE);
    copy_commit();
  };
  if (warp * TILE < count) load(warp);
  // The queries as left operands, one a row; the rows that are none are zeros.
  uint32_t left[ROW_TILES][D / 16][4];
#pragma unroll
  for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int query = t * MMA_ROWS + lane / 4 + h * 8;
      const bf16* from = query < queries ? q + (size_t)shared.numbers[query] * D + lane % 4 * 2 : nullptr;
#pragma unroll
      for (int c = 0; c < D / 8; c++)
        left[t][c / 2][c % 2 * 2 + h] = from ? *reinterpret_cast<const uint32_t*>(from + c * 8) : 0;
    }
  float o[ROW_TILES][D / 8][4] = {}, m[ROW_TILES][2], l[ROW_TILES][2] = {};
#pragma unroll
  for (int t = 0; t < ROW_TILES; t++) m[t][0] = m[t][1] = -INFINITY;
  for (int tile = warp; tile * TILE < count; tile += WARPS) {
    if ((tile + WARPS) * TILE < count) {
      load(tile + WARPS);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncwarp();
    const bf16(*here)[TILE * D] = shared.warps[warp].tiles[tile / WARPS & 1];
    auto keys = Pointer<D>::right_first(here[0]), values = Pointer<D>::down_first(here[1]);
    float s[ROW_TILES][2][4] = {};
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
      uint32_t b[4];
      ldmatrix(b, keys.at(0, d));
#pragma unroll
      for (int t = 0; t < ROW_TILES; t++) {
        mma(s[t][0], left[t][d], b[0], b[1]);
        mma(s[t][1], left[t][d], b[2], b[3]);
      }
    }
    int last = count - 1 - tile * TILE - lane % 4 * 2;
    uint32_t p[ROW_TILES][4];
#pragma unroll
    for (int t = 0; t < ROW_TILES; t++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float top = m[t][h];
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; e++) {
            s[t][n][e] = n * 8 + e % 2 <= last ? s[t][n][e] * log2_scale : -INFINITY;
            top = fmaxf(top, s[t][n][e]);
          }
        top = row_max(top);
        float shrink = exp2_fast(m[t][h] - top);
        m[t][h] = top, l[t][h] *= shrink;
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; e++) l[t][h] += s[t][n][e] = exp2_fast(s[t][n][e] - top);
#pragma unroll
        for (int n = 0; n < D / 8; n++) o[t][n][2 * h] *= shrink, o[t][n][2 * h + 1] *= shrink;
      }
      as_left(p[t], s[t][0], s[t][1]);
    }
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      ldmatrix_transposed(b, values.at(0, n));
#pragma unroll
      for (int t = 0; t < ROW_TILES; t++) {
        mma(o[t][2 * n], p[t], b[0], b[1]);
        mma(o[t][2 * n + 1], p[t], b[2], b[3]);
      }
    }
    // The tile after next goes where this one lies.
    __syncwarp();
  }

#pragma unroll
  for (int t = 0; t < ROW_TILES; t++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int query = t * MMA_ROWS + lane / 4 + h * 8;
      float sum = row_sum(l[t][h]);
      if (query >= queries) continue;
      if (lane % 4 == 0) shared.m[warp][query] = m[t][h], shared.l[warp][query] = sum;
#pragma unroll
      for (int n = 0; n < D / 8; n++)
        *reinterpret_cast<float2*>(&shared.warps[warp].o[place_of_o<D>(query, n * 8 + lane % 4 * 2)]) =
            make_float2(o[t][n][2 * h], o[t][n][2 * h + 1]);
    }
  __syncthreads();

  for (int i = threadIdx.x; i < queries * D; i += WARPS * 32) {
    int query = i / D, c = i % D;
    // The first warp always has a key; one without has m = -inf and adds 0.
    float top = shared.m[0][query], sum = 0.0f, value = 0.0f;
#pragma unroll
    for (int w = 1; w < WARPS; w++) top = fmaxf(top, shared.m[w][query]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      float weight = exp2_fast(shared.m[w][query] - top);
      sum += weight * shared.l[w][query];
      value += weight * shared.warps[w].o[place_of_o<D>(query, c)];
    }
    size_t to = (size_t)shared.numbers[query] * work.chunks + work.chunk;
    partial_o[to * D + c] = value;
    if (c == 0) partial_ml[to] = make_float2(top, sum);
  }
}
}  // namespace

#define ENTRY(D)                                                                                                       \
  KERNEL __launch_bounds__(WARPS * 32)                                                                                 \
      attention_decode_d##D(const bf16* q, const Row* rows, const bf16* const* blocks, float* partial_o,               \
                            float2* partial_ml, int heads, int kv_heads, long long offset, float log2_scale) {         \
    decode<D, 1>({(int)blockIdx.z, (int)gridDim.z, 1, nullptr}, q, rows, blocks, partial_o, partial_ml, heads,         \
                 kv_heads, offset, log2_scale);                                                                        \
  }                                                                                                                    \
  KERNEL __launch_bounds__(WARPS * 32, 2)                                                                              \
      attention_decode_shared_d##D(const bf16* q, const Row* rows, const bf16* const* blocks, const Item* items,       \
                                   const uint32_t* members, int chunks, float* partial_o, float2* partial_ml,          \
                                   int heads, int kv_heads, long long offset, float log2_scale) {                      \
    Item item = items[blockIdx.x];                                                                                     \
    decode<D, 2>({(int)item.chunk, chunks, (int)(items[blockIdx.x + 1].first - item.first), members + item.first}, q,  \
                 rows, blocks, partial_o, partial_ml, heads, kv_heads, offset, log2_scale);                            \
  }
ENTRY(64)
ENTRY(128)
#undef ENTRY
