// Tiles of rows in shared memory, and how a warp's matrix operands are read from them.
//
// A tile is `(rows, D)` bf16. The 16-byte chunk `c` of row `r` lies where chunk `c ^ (r % 8)` would (where a row is 64
// bytes, `c ^ (r / 2 % 4)`): the 8 rows that one pass of ldmatrix reads at the same column then lie in 8 different
// groups of banks, and so do the rows that copy16 writes.
#pragma once
#include "../cuda/compat.cuh"
#include "../cuda/span.cuh"

// Exponentials are powers of 2, so kernels take `log2_scale` = scale / ln 2.
constexpr float LN_2 = 0.6931471805599453f, LOG2_E = 1.4426950408889634f;

// The element at which chunk `c` of row `r` begins.
template <int D>
__device__ __forceinline__ int place(int r, int c) {
  return r * D + (c ^ (D == 32 ? r / 2 & 3 : r & 7)) * 8;
}

// Begins to copy ROWS rows, `stride` elements apart; those from `valid` on become zeros.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* from, int stride, int valid) {
  constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS;
  static_assert(ROWS % STEP == 0 && STEP % 8 == 0, "whole rounds, all of one swizzle");
  int row = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
  bf16* to = tile + place<D>(row, c);
  from += row * stride + c * 8;
#pragma unroll
  for (int i = 0; i < ROWS; i += STEP, from += STEP * stride) copy16(to + i * D, from, row + i < valid);
}

// Where a lane points in the ldmatrix of a tile's first 16 rows and columns. Other columns are an exclusive or away (a
// tile begins at a multiple of 128 bytes), other rows and further halves of a row a constant: one register a tile.
template <int D>
struct Pointer {
  shared_t address;

  __device__ __forceinline__ Pointer(const bf16* tile, int row, int chunk)
      : address(shared_address(tile + place<D>(row, chunk))) {}

  // The four 8 x 8 matrices in the order (upper left, lower left, upper right, lower right): the left operand of mma,
  // and the right one when transposed. `first` is a multiple of 8, `chunk` of what `at` will add to it.
  static __device__ __forceinline__ Pointer down_first(const bf16* tile, int first = 0, int chunk = 0) {
    int lane = threadIdx.x & 31;
    return Pointer(tile, first + (lane & 15), chunk + (lane >> 4));
  }
  // (upper left, upper right, lower left, lower right): the right operand of mma, whose columns are the tile's rows;
  // the left one when transposed.
  static __device__ __forceinline__ Pointer right_first(const bf16* tile, int chunk = 0) {
    int lane = threadIdx.x & 31;
    return Pointer(tile, (lane & 7) + (lane >> 4) * 8, chunk + (lane >> 3 & 1));
  }
  // The 16 rows from `first` (a multiple of 8), columns from 16 k on.
  __device__ __forceinline__ shared_t at(int first, int k) const {
    return (address ^ ((2 * k & 7) * 16)) + first * (2 * D) + 2 * k / 8 * 128;
  }
};

// Accumulators of two neighbouring 16 x 8 tiles, as the left operand of the next product: 16 x 16, rounded to bf16.
__device__ __forceinline__ void as_left(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = pack2(left[0], left[1]);
  a[1] = pack2(left[2], left[3]);
  a[2] = pack2(right[0], right[1]);
  a[3] = pack2(right[2], right[3]);
}

// c (16, 8 N) += a (16, D) . the N * 8 rows of `tile`, each a column of the right operand.
// `a(left, k)` fills the left operand's columns from 16 k on.
template <int D, int N, typename Left>
__device__ __forceinline__ void times_rows(float (&c)[N][4], Left a, Pointer<D> tile) {
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    uint32_t left[4];
    a(left, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[4];
      ldmatrix(b, tile.at(n * 8, k));
      mma(c[n], left, b[0], b[1]);
      mma(c[n + 1], left, b[2], b[3]);
    }
  }
}

// c (16, D) += p (16, 8 N; accumulators, rounded here) . the 8 N rows of `tile`.
template <int D, int N>
__device__ __forceinline__ void times_tile(float (&c)[D / 8][4], const float (&p)[N][4], Pointer<D> tile) {
#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    uint32_t left[4];
    as_left(left, p[2 * k], p[2 * k + 1]);
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      ldmatrix_transposed(b, tile.at(16 * k, n));
      mma(c[2 * n], left, b[0], b[1]);
      mma(c[2 * n + 1], left, b[2], b[3]);
    }
  }
}

// Sets 16 rows of accumulators, times `by[0]` (rows 0-7) and `by[1]` (8-15), into a tile from row `first` on.
template <int D>
__device__ __forceinline__ void store_rows(bf16* tile, int first, const float (&c)[D / 8][4], const float (&by)[2]) {
  int lane = threadIdx.x & 31, row = first + lane / 4, column = lane % 4 * 2;
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    *reinterpret_cast<uint32_t*>(tile + place<D>(row, n) + column) = pack2(c[n][0] * by[0], c[n][1] * by[0]);
    *reinterpret_cast<uint32_t*>(tile + place<D>(row + 8, n) + column) = pack2(c[n][2] * by[1], c[n][3] * by[1]);
  }
}

// The warp writes rows `first..first + ROWS` of a tile, those before `valid`, to global memory in whole chunks.
template <int D, int ROWS>
__device__ __forceinline__ void write_rows(bf16* to, int stride, const bf16* tile, int first, int valid) {
  constexpr int CHUNKS = D / 8;
  int lane = threadIdx.x & 31, c = lane % CHUNKS;
#pragma unroll
  for (int i = 0; i < ROWS * CHUNKS / 32; i++) {
    int row = first + lane / CHUNKS + i * (32 / CHUNKS);
    if (row < valid) {
      *reinterpret_cast<uint4*>(to + (size_t)row * stride + c * 8) =
          *reinterpret_cast<const uint4*>(tile + place<D>(row, c));
    }
  }
}

// Sum and maximum over the four lanes that hold one row of accumulators.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// The queries that block (y, z) of a grid over (blocks of SIZE, sequences) works on; blocks with many keys come first.
// None where the sequence has fewer (`valid` <= 0).
struct QueryBlock {
  Span mine, theirs;
  int first, valid;
  // Its first row in the whole batch.
  __device__ __forceinline__ int row() const { return mine.start + first; }
  // Row r of the block sees the keys up to the last row's, less valid - 1 - r.
  __device__ __forceinline__ int key_count() const { return theirs.length - mine.length + first + valid; }
};
template <int SIZE>
__device__ __forceinline__ QueryBlock query_block(const uint32_t* q_offsets, const uint32_t* kv_offsets, uint32_t y,
                                                  uint32_t z) {
  Span mine = span(q_offsets, z), theirs = span(kv_offsets, z);
  int first = (int)(gridDim.y - 1 - y) * SIZE;
  return {mine, theirs, first, min(SIZE, mine.length - first)};
}
