// What the kernels share that compute all of attention's gradients in one pass over keys (backward_80.cu,
// backward_90.cu): a block of keys walks over the queries that see it, and dq is summed over blocks of keys.
//
// dq's sums. They add in turn (../cuda/turns.cuh), first keys first, to an f32 copy in global memory: the first block
// sets it, the last that the queries see rounds the sum into dq. So no bit depends on which block comes first, nothing
// is cleared before and nothing rounded after. What keeps turns from costing time:
// - All blocks of a kv head walk over the same queries and heads in the same order, the last queries first (every key
//   is seen by those: of later keys the walk only ends earlier). So each stays a step behind the one it waits for.
// - Blocks take their keys in the order in which they begin, first keys first: what a block waits for has begun.
// - First keys have the longest walks, so the short ones fill the end.
#pragma once
#include "../cuda/turns.cuh"
#include "tile.cuh"

// Where the walk is: the block's first query, and its head in the group.
struct Place {
  int query, head;
  template <int QUERIES>
  __device__ __forceinline__ Place next(int group) const {
    return head + 1 < group ? Place{query, head + 1} : Place{query - QUERIES, 0};
  }
};

// The number of the block of QUERIES queries that begins at `row` of the batch, in `sequence`, among all heads': fewer
// than heads (tq / QUERIES + sequences). What two sequences share of QUERIES rows is one block of each.
template <int QUERIES>
__device__ __forceinline__ size_t tile_number(int head, int row, int sequence, int tq, int sequences) {
  return (size_t)head * (tq / QUERIES + sequences) + row / QUERIES + sequence;
}

// Rounds a lane's part of 16 rows and 8 N columns, times `scale`; of its two rows those among the `rows` from `to` on.
template <int N>
__device__ __forceinline__ void round_rows(bf16* to, int stride, const float (&c)[N][4], float scale, int rows) {
#pragma unroll
  for (int h = 0; h < 2; h++)
    if (8 * h < rows) {
#pragma unroll
      for (int n = 0; n < N; n++)
        *reinterpret_cast<uint32_t*>(to + (size_t)(8 * h) * stride + n * 8) =
            pack2(c[n][2 * h] * scale, c[n][2 * h + 1] * scale);
    }
}
