// Which of up to three adapters of one input a block works for.
#pragma once
#include "../cuda/compat.cuh"

struct Place {
  int adapter, block;
};

// Of blocks of SIZE channels each, those of the second adapter's width behind those of the first's, the third's last:
// whose block this is, and which of its own.
template <int SIZE>
__device__ __forceinline__ Place place(int block, int width0, int width1) {
  int blocks0 = (width0 + SIZE - 1) / SIZE, blocks1 = (width1 + SIZE - 1) / SIZE;
  if (block < blocks0) return {0, block};
  if (block < blocks0 + blocks1) return {1, block - blocks0};
  return {2, block - blocks0 - blocks1};
}

template <typename T>
__device__ __forceinline__ T of(int adapter, T x0, T x1, T x2) {
  return adapter == 0 ? x0 : adapter == 1 ? x1 : x2;
}
