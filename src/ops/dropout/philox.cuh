// The generator of src/rng.rs on the device: Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3,
// SC 2011).
#pragma once
#include "../cuda/compat.cuh"

struct Words {
  uint32_t w[4];
};

// Block `block` at `step` of stream `stream` of `seed`: counter (block, step low, step high, stream), key the seed; the
// block's upper half goes into the stream word's.
__device__ __forceinline__ Words random_block(uint64_t seed, uint32_t stream, uint64_t step, uint64_t block) {
  uint32_t c[4] = {(uint32_t)block, (uint32_t)step, (uint32_t)(step >> 32), stream ^ ((uint32_t)(block >> 32) << 16)};
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  for (int round = 0; round < 10; round++) {
    uint32_t high0 = __umulhi(c[0], 0xD2511F53u), low0 = c[0] * 0xD2511F53u;
    uint32_t high1 = __umulhi(c[2], 0xCD9E8D57u), low1 = c[2] * 0xCD9E8D57u;
    c[0] = high1 ^ c[1] ^ key[0];
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ key[1];
    c[3] = low0;
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return {{c[0], c[1], c[2], c[3]}};
}

// A word's upper 24 bits as a number in [0, 1): exact in f32.
__device__ __forceinline__ float to_unit(uint32_t word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }

// The least word whose number is `p` (0 to 1, not 1) or more: to_unit(word) >= p where word >= least_word(p), exactly.
__device__ __forceinline__ uint32_t least_word(float p) { return (uint32_t)ceilf(p * 16777216.0f) << 8; }
