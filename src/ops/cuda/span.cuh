// A sequence of a concatenated batch: its first row, its length.
#pragma once
#include "compat.cuh"

struct Span {
  int start, length;
};
__device__ __forceinline__ Span span(const uint32_t* offsets, int sequence) {
  int start = (int)offsets[sequence];
  return {start, (int)offsets[sequence + 1] - start};
}
