// The CUDA side of `src/ops/cuda/compat.cuh` for a C++ compiler.
#pragma once
#include "turns.h"
#include "warp.h"
#include "wgmma.h"

// A block begins: nothing of the last one is left.
inline void emu::begin_block() {
  written.clear(), waited.clear();
  std::fill(writers.begin(), writers.end(), 0);
  for (unsigned i = 0; i < count; i++) products[i].clear(), closed[i].clear(), begun[i].clear();
}

#define KERNEL extern "C" void
#define DYNAMIC_SHARED(name) unsigned char* name = emu::shared->data()
// Not in templates or inline functions: there g++ gives each its own section. Those take dynamic shared memory.
#define __shared__ static __attribute__((section("emu_shared")))

#define threadIdx (emu::threads[emu::current].index)
#define blockIdx (emu::block_index)
#define blockDim (emu::block_size)
#define gridDim (emu::grid_size)

static inline void __syncthreads() { emu::barrier(); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emu::full(mask);
  emu::together(emu::SYNC, [](emu::Warp&) {});
}
template <typename T>
static inline T __shfl_sync(unsigned mask, T x, int source, int width = 32) {
  emu::full(mask);
  return emu::shuffle(x, [=](unsigned i) { return (i & ~(width - 1)) | (source & (width - 1)); });
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32) {
  emu::full(mask);
  return emu::shuffle(x, [=](unsigned i) { return (i ^ bits) / width == i / width ? i ^ bits : i; });
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
  emu::full(mask);
  return emu::shuffle(x, [=](unsigned i) { return i % width + by < (unsigned)width ? i + by : i; });
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
  emu::full(mask);
  return emu::shuffle(x, [=](unsigned i) { return i % width >= by ? i - by : i; });
}
static inline unsigned __ballot_sync(unsigned mask, int x) {
  unsigned votes = 0;
  for (int i = 0; i < 32; i++) votes |= (unsigned)(__shfl_sync(mask, x, i) != 0) << i;
  return votes;
}
static inline int __any_sync(unsigned mask, int x) { return __ballot_sync(mask, x) != 0; }
static inline int __all_sync(unsigned mask, int x) { return __ballot_sync(mask, x) == 0xffffffffu; }
// Only one thread runs at a time.
template <typename T>
static inline T atomicAdd(T* p, T x) { T old = *p; *p = old + x; return old; }
static inline void __threadfence() {}

static inline uint32_t forgotten(uint32_t x) { return x; }
template <typename T>
static inline T* in_global(T* p) { return p; }
typedef uintptr_t shared_t;
static inline shared_t shared_address(const void* p) { return (shared_t)p; }

static inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emu::Lane& me = emu::lane();
  memcpy(me.a, a, 16);
  me.a[4] = b0, me.a[5] = b1;
  memcpy(me.c, c, 16);
  emu::together(emu::MMA, emu::mma_of);
  memcpy(c, me.sums, 16);
}
static inline uint32_t transposed(uint32_t pair) {
  // Column lane / 4 of rows 2 (lane % 4) and the next.
  uint32_t upper = emu::shuffle(pair, [](unsigned i) { return i % 4 * 8 + i / 8; });
  uint32_t lower = emu::shuffle(pair, [](unsigned i) { return i % 4 * 8 + 4 + i / 8; });
  int bits = emu::current / 4 % 2 * 16;
  return (upper >> bits & 0xffffu) | (lower >> bits & 0xffffu) << 16;
}
static inline void ldmatrix(uint32_t (&r)[4], shared_t row) {
  emu::lane().p = (const void*)row;
  emu::together(emu::LDMATRIX, [](emu::Warp& warp) { emu::ldmatrix_of(warp, false); });
  memcpy(r, emu::lane().result, 16);
}
static inline void ldmatrix_transposed(uint32_t (&r)[4], shared_t row) {
  emu::lane().p = (const void*)row;
  emu::together(emu::LDMATRIX_TRANSPOSED, [](emu::Warp& warp) { emu::ldmatrix_of(warp, true); });
  memcpy(r, emu::lane().result, 16);
}
static inline void copy16(void* to, const void* from, bool valid) { emu::copy(to, from, 16, valid); }
static inline void copy4(void* to, const void* from, bool valid) { emu::copy(to, from, 4, valid); }
static inline void copy_commit() { emu::commit(); }
template <int N>
static inline void copy_wait() { emu::wait(N); }
