// Hopper's warpgroup products. A warp computes its own 16 rows, and nothing before it waits: what is read too early is still
// the old value, what is overwritten too early is used.
#pragma once
#include "warp.h"

namespace emu {
// Of the descriptor only what the kernels vary: the address; and how far the next 64 columns of a transposed operand are.
inline uint32_t wgmma_panel;

struct Product {
  float* c;
  int columns;
  uint32_t a[4];
  uintptr_t a_rows, b;
  uint32_t b_panel;
  bool transposed;
};
inline std::vector<Product> products[MOST_THREADS];

// Row r, column c of a panel of 128-byte rows that begins `address % 128` bytes into the columns.
inline float swizzled(uintptr_t address, int r, int c) {
  uintptr_t line = address / 128 * 128, column = address % 128 / 2 + c;
  const uint16_t* row = (const uint16_t*)(line + r * 128);
  uintptr_t number = (uintptr_t)row / 128 % 8;
  in_shared(row, 128, 128, "wgmma of a row outside shared memory or not aligned");
  return __uint_as_float((uint32_t)row[(column / 8 ^ number) * 8 + column % 8] << 16);
}

inline void products_of(Warp& warp) {
  size_t first = &warp - warps;
  for (size_t i = 0; i < products[first * 32].size(); i++) {
    auto of = [&](int lane) -> Product& { return products[first * 32 + lane][i]; };
    Product& one = of(0);
    for (int block = 0; block < one.columns / 8; block++) {
      float a[16][16], b[16][8], c[16][8];
      for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, t = lane % 4;
        for (int e = 0; e < 4; e++) c[g + e / 2 * 8][2 * t + e % 2] = of(lane).c[block * 4 + e];
        for (int e = 0; e < 4 && !one.a_rows; e++)
          for (int h = 0; h < 2; h++) a[g + 8 * (e & 1)][2 * t + 8 * (e >> 1) + h] = half_of(of(lane).a[e], h);
      }
      for (int r = 0; r < 16 && one.a_rows; r++)
        for (int k = 0; k < 16; k++) a[r][k] = swizzled(one.a_rows, (int)(first % 4) * 16 + r, k);
      for (int k = 0; k < 16; k++)
        for (int n = 0; n < 8; n++) {
          int column = block * 8 + n;
          b[k][n] = one.transposed ? swizzled(one.b + (uintptr_t)(column / 64) * one.b_panel, k, column % 64) : swizzled(one.b, column, k);
        }
      for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
          for (int n = 0; n < 8; n++) c[r][n] += a[r][k] * b[k][n];
      for (int lane = 0; lane < 32; lane++)
        for (int e = 0; e < 4; e++) of(lane).c[block * 4 + e] = c[lane / 4 + e / 2 * 8][2 * (lane % 4) + e % 2];
    }
  }
  for (int lane = 0; lane < 32; lane++) products[first * 32 + lane].clear();
}
}  // namespace emu

static inline void wgmma_see_shared() {}
template <int N>
static inline void wgmma_begin(float (&)[N][4]) {}
template <int N>
static inline void wgmma_end(float (&)[N][4]) {
  emu::together(emu::WGMMA, emu::products_of);
}
static inline void wgmma_rows(float (&c)[8][4], uint64_t a, uint64_t b) {
  emu::products[emu::current].push_back({&c[0][0], 64, {}, (uintptr_t)a, (uintptr_t)b, 0, false});
}
template <int N>
static inline void wgmma_tile(float (&c)[N][4], const uint32_t (&a)[4], uint64_t b) {
  emu::products[emu::current].push_back({&c[0][0], N * 8, {a[0], a[1], a[2], a[3]}, 0, (uintptr_t)b, emu::wgmma_panel, true});
}
