// What the two decode kernels share: how a row's keys are described and cut.
#pragma once
#include "tile.cuh"

// A run of a row's keys and values, each `(length, kv_heads, D)` in one piece: a shared prefix, a row's own tail, or one block of a
// paged cache. `start` is the row's position of its first key: 0, then each one's start + length.
struct Segment {
  const bf16 *k, *v;
  uint32_t start, length;
};

// Keys a block takes. Chunks are cut at the row's own positions, whatever its segments and whoever shares the batch.
constexpr int CHUNK = 256;

// Row `r` has the segments `rows[r]..rows[r + 1]`, at least one.
__device__ __forceinline__ int length_of(const Segment* segments, const uint32_t* rows, int r) {
  const Segment& last = segments[rows[r + 1] - 1];
  return (int)(last.start + last.length);
}
