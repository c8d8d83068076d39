// u = scaling · dropout(x) · Aᵀ of up to three adapters of one input (q, k, v), each with a mask of its own: one
// pass over x, whose dropped copies are never in memory.
//
// x (rows, width) bf16; a (adapters · rank, width) bf16, the adapters' one below the other; u (rows, adapters · rank)
// bf16. Sequence s has rows starts[s] to starts[s + 1]; steps (adapters, sequences) pairs of words. width is a multiple
// of 8. grid = (blocks of ROWS of the longest sequence, sequences), 256 threads. Dynamic shared memory: 64 bytes a
// column of u.
//
// A block has 16 rows; its warps take 32 channels at a time, in turn. A lane reads 8 neighbouring channels of two rows
// into registers that are, once dropped, mma's left operand: the order of channels within a product is free, and this
// one gives a lane whole blocks of the generator. A is read likewise, out of L2. Most instructions are the generator's.
#include "../cuda/span.cuh"
#include "mask.cuh"
#include "warps.cuh"

constexpr int ROWS = 16, WARPS = 8, STEP = 32;

template <int RANK, int ADAPTERS>
__device__ __forceinline__ void lora_forward(const bf16* x, const bf16* a, bf16* u, const uint32_t* starts,
                                             const uint32_t* steps, int width, uint64_t seed, uint32_t stream, float p,
                                             float scale, float scaling) {
  constexpr int COLUMNS = ADAPTERS * RANK, TILES = COLUMNS / 8;
  Span mine = span(starts, blockIdx.y);
  int first = blockIdx.x * ROWS;
  if (first >= mine.length) return;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  x += (size_t)(mine.start + first) * width;
  auto there = [=](int h) { return first + g + 8 * h < mine.length; };

  float c[TILES][4] = {};
  for (int begin = warp * STEP; begin < width; begin += WARPS * STEP) {
    int channel = begin + t * 8;
    const uint4 zero = make_uint4(0, 0, 0, 0);
    uint4 row[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      bool read = there(h) && channel < width;
      row[h] = read ? *reinterpret_cast<const uint4*>(x + (size_t)(g + 8 * h) * width + channel) : zero;
    }
#pragma unroll
    for (int i = 0; i < ADAPTERS; i++) {
      Mask mask(seed, stream, steps + 2 * (i * gridDim.y + blockIdx.y), p, scale);
      uint32_t left[2][4];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        int at = first + g + 8 * h;
        uint2 low = mask.drop(make_uint2(row[h].x, row[h].y), mask.draw(at, width, channel));
        uint2 high = mask.drop(make_uint2(row[h].z, row[h].w), mask.draw(at, width, channel + 4));
        left[0][h] = low.x, left[0][h + 2] = low.y;
        left[1][h] = high.x, left[1][h + 2] = high.y;
      }
#pragma unroll
      for (int n = 0; n < RANK / 8; n++) {
        const bf16* from = a + (size_t)(i * RANK + n * 8 + g) * width + channel;
        uint4 b = channel < width ? *reinterpret_cast<const uint4*>(from) : zero;
        mma(c[i * (RANK / 8) + n], left[0], b.x, b.y);
        mma(c[i * (RANK / 8) + n], left[1], b.z, b.w);
      }
    }
  }

  bf16* rows = u + (size_t)(mine.start + first) * COLUMNS;
  store_rows<WARPS, TILES>(rows, c, mine.length - first, scaling);
}

#define LORA_FORWARD(RANK, ADAPTERS)                                                                                   \
  KERNEL __launch_bounds__(WARPS * 32) lora_forward_r##RANK##_x##ADAPTERS(                                             \
      const bf16* x, const bf16* a, bf16* u, const uint32_t* starts, const uint32_t* steps, int width, uint64_t seed,  \
      uint32_t stream, float p, float scale, float scaling) {                                                          \
    lora_forward<RANK, ADAPTERS>(x, a, u, starts, steps, width, seed, stream, p, scale, scaling);                      \
  }
#define LORA_FORWARD_EACH(RANK) LORA_FORWARD(RANK, 1) LORA_FORWARD(RANK, 2) LORA_FORWARD(RANK, 3)
LORA_FORWARD_EACH(8)
LORA_FORWARD_EACH(16)
LORA_FORWARD_EACH(32)
LORA_FORWARD_EACH(64)
