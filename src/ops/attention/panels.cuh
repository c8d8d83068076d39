// Tiles of rows as wgmma reads them: panels of 64 columns (../cuda/wgmma.cuh), one behind the other.
#pragma once
#include "../cuda/wgmma.cuh"
#include "tile.cuh"

// Kernels by wgmma have a body where there is wgmma; elsewhere they are never launched.
#if defined(CUDA_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#endif

// Panels begin at multiples of this; kernels ask for as much shared memory more than they need.
[[maybe_unused]] constexpr int PANEL_ALIGNMENT = 1024;

__device__ __forceinline__ unsigned char* panels_in(unsigned char* memory) {
  return memory + (PANEL_ALIGNMENT - shared_address(memory) % PANEL_ALIGNMENT) % PANEL_ALIGNMENT;
}

// The element at which chunk `c` of row `r` begins, in panels of ROWS rows.
template <int ROWS>
__device__ __forceinline__ int panel_place(int r, int c) {
  return c / 8 * (ROWS * 64) + r * 64 + ((c & 7) ^ (r & 7)) * 8;
}

// As load_tile, in panels.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_panels(bf16* tile, const bf16* from, int stride, int valid) {
  constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS;
  int row = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
  bf16* to = tile + panel_place<ROWS>(row, c);
  from += row * stride + c * 8;
#pragma unroll
  for (int i = 0; i < ROWS; i += STEP, from += STEP * stride) copy16(to + i * 64, from, row + i < valid);
}
