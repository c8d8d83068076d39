// Dropout of adapters' inputs as products read them: four neighbouring channels at a time, which is what one block of
// the generator decides. Kept where ../dropout/kernels.cu keeps, and rounded as it rounds.
#pragma once
#include "../dropout/philox.cuh"

// One adapter's mask of one sequence.
struct Mask {
  uint64_t seed, step;
  uint32_t stream, least;
  float scale;

  // `step`: its two words, the low one first. At the rate 0 everything is kept and nothing drawn.
  __device__ __forceinline__ Mask(uint64_t seed, uint32_t stream, const uint32_t* step, float p, float scale)
      : seed(seed), step(step[0] | (uint64_t)step[1] << 32), stream(stream), least(least_word(p)), scale(scale) {}

  // What decides channels c to c + 3 (c a multiple of 4) of row `row` of a sequence whose rows have `width` (as well).
  __device__ __forceinline__ Words draw(int row, int width, int c) const {
    if (least == 0) return {};
    return random_block(seed, stream, step, (uint64_t)row * (uint32_t)(width / 4) + (uint32_t)(c / 4));
  }
  __device__ __forceinline__ float drop(float x, uint32_t word) const { return word >= least ? x * scale : 0.0f; }
  // Of four channels of x.
  __device__ __forceinline__ uint2 drop(uint2 x, const Words& words) const {
    float2 a = unpack2(x.x), b = unpack2(x.y);
    return make_uint2(pack2(drop(a.x, words.w[0]), drop(a.y, words.w[1])),
                      pack2(drop(b.x, words.w[2]), drop(b.y, words.w[3])));
  }
};
