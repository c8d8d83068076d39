// The end of a product whose inner dimension a block's warps have shared: their sums, added in the warps' order, so
// that a row's bits depend on nothing but the row.
#pragma once
#include "../cuda/elements.cuh"

// 16 rows of `out` (rows, TILES · 8), of which `valid` are there: `scaling` times the sum of all warps' `c`, mma's
// accumulators. Dynamic shared memory: 64 bytes a column. For whole blocks of WARPS warps.
template <int WARPS, int TILES>
__device__ __forceinline__ void store_rows(bf16* out, const float (&c)[TILES][4], int valid, float scaling) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  // (tiles, halves of the rows, lanes)
  DYNAMIC_SHARED(memory);
  float2* sums = reinterpret_cast<float2*>(memory);
  for (int w = 0; w < WARPS; w++) {
    if (warp == w) {
#pragma unroll
      for (int n = 0; n < TILES; n++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          float2* sum = sums + (n * 2 + h) * 32 + lane;
          float2 before = w > 0 ? *sum : make_float2(0.0f, 0.0f);
          *sum = make_float2(before.x + c[n][2 * h], before.y + c[n][2 * h + 1]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = warp; i < TILES * 2; i += WARPS) {
    int n = i / 2, row = g + i % 2 * 8;
    float2 sum = sums[i * 32 + lane];
    if (row >= valid) continue;
    *reinterpret_cast<uint32_t*>(out + row * TILES * 8 + n * 8 + 2 * t) = pack2(sum.x * scaling, sum.y * scaling);
  }
}
