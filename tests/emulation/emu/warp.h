// What a warp does together: shuffles, matrix products, matrix loads; and copies that take their time.
#pragma once
#include "fibers.h"

namespace emu {
enum Operation { SYNC, SHUFFLE, MMA, LDMATRIX, LDMATRIX_TRANSPOSED, WGMMA };

inline Lane& lane() { return warps[current / 32].lanes[current % 32]; }

// Every lane gives `value` and gets that of the lane `source(its own number)`.
template <typename T, typename F>
inline T shuffle(T value, F source) {
  static_assert(sizeof(T) <= 8, "shuffles move 4 or 8 bytes");
  Lane& me = lane();
  memcpy(me.a, &value, sizeof(T));
  me.a[2] = source(current % 32);
  together(SHUFFLE, [](Warp& warp) {
    for (unsigned i = 0; i < 32; i++)
      if (warp.all >> i & 1) {
        if (!(warp.all >> warp.lanes[i].a[2] & 1)) stop("a shuffle from a lane that is not there");
        memcpy(warp.lanes[i].result, warp.lanes[warp.lanes[i].a[2]].a, 8);
      }
  });
  T result;
  memcpy(&result, me.result, sizeof(T));
  return result;
}

inline void full(unsigned mask) {
  if (mask != 0xffffffffu) stop("only the full mask is emulated");
}

inline float half_of(uint32_t pair, int high) { return __uint_as_float(high ? pair & 0xffff0000u : pair << 16); }

inline void mma_of(Warp& warp) {
  float a[16][16], b[16][8], c[16][8];
  for (int i = 0; i < 32; i++) {
    const Lane& l = warp.lanes[i];
    int g = i / 4, t = i % 4;
    for (int h = 0; h < 2; h++) {
      for (int r = 0; r < 4; r++) a[g + 8 * (r & 1)][2 * t + 8 * (r >> 1) + h] = half_of(l.a[r], h);
      for (int r = 0; r < 2; r++) b[2 * t + 8 * r + h][g] = half_of(l.a[4 + r], h);
      for (int r = 0; r < 2; r++) c[g + 8 * r][2 * t + h] = l.c[2 * r + h];
    }
  }
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) c[row][n] += a[row][k] * b[k][n];
  for (int i = 0; i < 32; i++)
    for (int r = 0; r < 4; r++) warp.lanes[i].sums[r] = c[i / 4 + 8 * (r >> 1)][2 * (i % 4) + (r & 1)];
}

inline void in_shared(const void* p, size_t bytes, size_t alignment, const char* what) {
  const unsigned char *at = (const unsigned char*)p, *start = shared->data();
  bool dynamic = shared_bytes && at >= start && at + bytes <= start + shared_bytes;
  bool fixed = __start_emu_shared && at >= __start_emu_shared && at + bytes <= __stop_emu_shared;
  if ((!dynamic && !fixed) || (uintptr_t)p % alignment) stop(what);
}

inline void ldmatrix_of(Warp& warp, bool transposed) {
  const uint16_t* rows[32];
  for (int i = 0; i < 32; i++) {
    in_shared(warp.lanes[i].p, 16, 16, "ldmatrix of a row outside shared memory or not aligned");
    rows[i] = (const uint16_t*)warp.lanes[i].p;
  }
  for (int m = 0; m < 4; m++) {
    // 8 rows of 16 bytes take one pass over the 32 banks of 4 bytes, if no two rows share a bank.
    unsigned seen = 0;
    for (int r = 0; r < 8; r++) seen |= 1u << ((uintptr_t)rows[8 * m + r] / 16 % 8);
    bank_conflicts += 8 - __builtin_popcount(seen);
    for (int i = 0; i < 32; i++) {
      int g = i / 4, t = i % 4;
      uint32_t low = transposed ? rows[8 * m + 2 * t][g] : rows[8 * m + g][2 * t];
      uint32_t high = transposed ? rows[8 * m + 2 * t + 1][g] : rows[8 * m + g][2 * t + 1];
      warp.lanes[i].result[m] = low | high << 16;
    }
  }
}

// Which thread (its number + 1) wrote a word of dynamic shared memory that wgmma does not see yet.
inline std::vector<uint16_t> writers;

inline void unseen_by_wgmma(const void* at, int bytes) {
  size_t word = ((const unsigned char*)at - shared->data()) / 4;
  if (writers.size() <= word + bytes / 4) writers.resize(word + bytes / 4 + 1);
  for (int i = 0; i < bytes / 4; i++) {
    writers[word + i] = current + 1;
    threads[current].unseen.push_back(word + i);
  }
}

// What is under way has not arrived: until its thread waits for it, the place holds NaNs. So a missing wait, a missing
// barrier after it, and a copy begun while others still read the place all show.
inline void copy(void* to, const void* from, int bytes, bool valid) {
  in_shared(to, bytes, bytes, "a copy to a place outside shared memory or not aligned");
  if (valid && (uintptr_t)from % bytes) stop("a copy from an address that is not aligned");
  memset(to, POISON, bytes);
  Thread& t = threads[current];
  t.copies.push_back({(unsigned char*)to, (const unsigned char*)from, bytes, valid});
  t.ungrouped++;
}

inline void commit() {
  Thread& t = threads[current];
  t.groups.push_back(t.ungrouped);
  t.ungrouped = 0;
}

inline void wait(size_t youngest) {
  Thread& t = threads[current];
  if (t.groups.size() <= youngest) return;
  size_t groups = t.groups.size() - youngest, done = 0;
  for (size_t i = 0; i < groups; i++) done += t.groups[i];
  for (size_t i = 0; i < done; i++) {
    const Copy& c = t.copies[i];
    if (c.valid) memcpy(c.to, c.from, c.bytes);
    else memset(c.to, 0, c.bytes);
    if (c.bytes == 16) unseen_by_wgmma(c.to, c.bytes);
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + done);
  t.groups.erase(t.groups.begin(), t.groups.begin() + groups);
}
}  // namespace emu
