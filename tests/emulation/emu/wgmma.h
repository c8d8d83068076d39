// Hopper's warpgroup products. A warp computes its own 16 rows when it waits for them, and nothing before: what is read
// too early is still the old value. An operand in shared memory is looked at when its product is begun, too: all of it
// must be seen by wgmma (a fence after each write), and nobody may change it until the end.
#pragma once
#include "warp.h"

namespace emu {
// Of the descriptor only what kernels vary: the address; how far the next 64 columns of a transposed operand are.
inline uint32_t wgmma_panel;

// In shared memory, in panels of 128-byte rows: `by_rows`, 16 columns of a row each; else 16 rows of all columns.
struct Operand {
  uintptr_t at;
  uint32_t panel;
  bool by_rows;

  // Element k of row or column i.
  const uint16_t* element(int i, int k) const {
    int r = by_rows ? i : k, c = by_rows ? k : i % 64;
    uintptr_t from = at + (by_rows ? 0 : (uintptr_t)(i / 64) * panel), column = from % 128 / 2 + c;
    const uint16_t* row = (const uint16_t*)(from / 128 * 128 + r * 128);
    return row + ((column / 8 ^ (uintptr_t)row / 128 % 8) * 8 + column % 8);
  }
  float value(int i, int k) const { return __uint_as_float((uint32_t)*element(i, k) << 16); }
  // A number of all elements of the rows or columns first..end.
  uint64_t sum(int first, int end) const {
    uint64_t sum = 0;
    for (int i = first; i < end; i += by_rows ? 1 : 8)
      for (int k = 0; k < 16; k += by_rows ? 8 : 1) {
        const uint16_t* chunk = element(i, k);
        in_shared(chunk, 16, 16, "wgmma of an operand outside shared memory or not aligned");
        size_t word = ((const unsigned char*)chunk - shared->data()) / 4;
        for (size_t w = word; w < word + 4; w++)
          if (w < writers.size() && writers[w]) stop("wgmma of what was written without a fence");
        uint64_t halves[2];
        memcpy(halves, chunk, 16);
        sum = (sum * 31 + halves[0]) * 31 + halves[1];
      }
    return sum;
  }
};

struct Product {
  float* c;
  int columns;
  bool add, from_registers;
  uint32_t left[4];
  Operand a, b;
  uint64_t sum;
};
inline std::vector<Product> products[MOST_THREADS];
// How many of a thread's products each closed group ends with; the accumulators that it may begin products into.
inline std::vector<size_t> closed[MOST_THREADS];
inline std::vector<const float*> begun[MOST_THREADS];

inline uint64_t operands(const Product& p) {
  int first = (int)(current / 32 % 4) * 16;
  return (p.from_registers ? 0 : p.a.sum(first, first + 16)) + p.b.sum(0, p.columns);
}

inline void begin_product(Product p) {
  auto& mine = begun[current];
  if (std::find(mine.begin(), mine.end(), p.c) == mine.end()) stop("a product into accumulators without a fence");
  if (current % 32 == 0) p.sum = operands(p);
  products[current].push_back(p);
}

inline void compute(const Product& one, Product* (&of)[32]) {
  static float a[16][16], b[16][128], c[16][128];
  int warp = current / 32, columns = one.columns;
  for (int k = 0; k < 16; k++)
    for (int n = 0; n < columns; n++) b[k][n] = one.b.value(n, k);
  for (int r = 0; r < 16 && !one.from_registers; r++)
    for (int k = 0; k < 16; k++) a[r][k] = one.a.value(warp % 4 * 16 + r, k);
  for (int lane = 0; lane < 32; lane++) {
    int g = lane / 4, t = lane % 4;
    for (int e = 0; e < 4 && one.from_registers; e++)
      for (int h = 0; h < 2; h++) a[g + 8 * (e & 1)][2 * t + 8 * (e >> 1) + h] = half_of(of[lane]->left[e], h);
    for (int i = 0; i < columns / 2; i++)
      c[g + i / 2 % 2 * 8][i / 4 * 8 + 2 * t + i % 2] = one.add ? of[lane]->c[i] : 0.0f;
  }
  for (int r = 0; r < 16; r++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < columns; n++) c[r][n] += a[r][k] * b[k][n];
  for (int lane = 0; lane < 32; lane++)
    for (int i = 0; i < columns / 2; i++)
      of[lane]->c[i] = c[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + 2 * (lane % 4) + i % 2];
}

// All but the `left` youngest groups of the warp's products.
inline void compute_products(Warp& warp, size_t left) {
  size_t first = (&warp - warps) * 32, groups = closed[first].size();
  size_t count = groups > left ? closed[first][groups - 1 - left] : 0;
  for (size_t i = 0; i < count; i++) {
    Product* of[32];
    for (int lane = 0; lane < 32; lane++) of[lane] = &products[first + lane][i];
    if (of[0]->sum != operands(*of[0])) stop("an operand of a product under way was written");
    compute(*of[0], of);
  }
  for (size_t thread = first; thread < first + 32; thread++) {
    auto& mine = products[thread];
    for (size_t i = 0; i < count; i++)
      begun[thread].erase(std::remove(begun[thread].begin(), begun[thread].end(), mine[i].c), begun[thread].end());
    mine.erase(mine.begin(), mine.begin() + count);
    auto& ends = closed[thread];
    ends.erase(ends.begin(), ends.begin() + (groups > left ? groups - left : 0));
    for (size_t& end : ends) end -= count;
  }
}
}  // namespace emu

static inline void wgmma_see_shared() {
  auto& mine = emu::threads[emu::current];
  for (uint32_t word : mine.unseen)
    if (emu::writers[word] == emu::current + 1) emu::writers[word] = 0;
  mine.unseen.clear();
}
static inline void wgmma_operand(bf16* at, uint32_t pair) {
  memcpy(at, &pair, 4);
  emu::unseen_by_wgmma(at, 4);
}
template <int N>
static inline void wgmma_begin(float (&c)[N][4]) {
  emu::begun[emu::current].push_back(&c[0][0]);
}
static inline void wgmma_commit() { emu::closed[emu::current].push_back(emu::products[emu::current].size()); }
template <int LEFT, int N>
static inline void wgmma_wait(float (&)[N][4]) {
  emu::together(emu::WGMMA, [](emu::Warp& warp) { emu::compute_products(warp, LEFT); });
}
template <int N>
static inline void wgmma_end(float (&c)[N][4]) {
  wgmma_commit();
  wgmma_wait<0>(c);
}
static inline void wgmma_rows(float (&c)[8][4], uint64_t a, uint64_t b, bool add = true) {
  emu::begin_product({&c[0][0], 64, add, false, {}, {(uintptr_t)a, 0, true}, {(uintptr_t)b, 0, true}, 0});
}
static inline void wgmma_rows_first(float (&c)[8][4], uint64_t a, uint64_t b) { wgmma_rows(c, a, b, false); }
static inline void wgmma_columns(float (&c)[8][4], uint64_t a, uint64_t b) {
  emu::begin_product({&c[0][0], 64, true, false, {}, {(uintptr_t)a, 0, false}, {(uintptr_t)b, 0, false}, 0});
}
template <int N>
static inline void wgmma_tile(float (&c)[N][4], const uint32_t (&a)[4], uint64_t b) {
  emu::begin_product(
      {&c[0][0], N * 8, true, true, {a[0], a[1], a[2], a[3]}, {}, {(uintptr_t)b, emu::wgmma_panel, false}, 0});
}
