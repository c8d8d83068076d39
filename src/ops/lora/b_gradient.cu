// dB = dyᵀ · u of up to three adapters of one input, of every sequence in one launch.
//
// dy0 to dy2 (rows, width0 to width2) bf16; u0 to u2 (rows, RANK) bf16, their rows `stride` apart (strips of one
// tensor). Sequence s has rows starts[s] to starts[s + 1] and chunks of TOKENS rows chunks[s] to chunks[s + 1]. partial
// (all chunks, all widths, RANK) f32: each chunk's dBs, one below the other. Widths are multiples of 4, 0 of adapters
// that are not there; RANK and stride are even. grid = (blocks of 128 channels of each width, one width behind the
// other; chunks of the longest sequence; sequences), 256 threads.
//
// A warp has 16 channels, of which a lane reads 4 neighbouring ones of two rows; transposed in registers they are the
// left operand, whose row g is channel 4 (g / 2) + g % 2, and whose row g + 8 the one two further. dy is read once, 16
// rows ahead of the product; the sums stay in registers. `lora_backward_sum` adds the chunks in order.
#include "../cuda/elements.cuh"
#include "../cuda/span.cuh"
#include "place.cuh"

constexpr int TOKENS = 512, WARPS = 8, CHANNELS = 16;

template <int RANK>
__device__ __forceinline__ void lora_b_gradient(const bf16* dy, const bf16* u, float* partial, const uint32_t* starts,
                                                const uint32_t* chunks, int block, int width, int all, int stride) {
  constexpr int TILES = RANK / 8;
  Span mine = span(starts, blockIdx.z);
  int begin = blockIdx.y * TOKENS, end = min(begin + TOKENS, mine.length);
  int first = (block * WARPS + threadIdx.x / 32) * CHANNELS;
  if (begin >= end || first >= width) return;
  int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, channel = first + 4 * t;

  // Of 16 rows from `row` on, beyond `end` zeros.
  struct Read {
    uint2 dy[2];
    uint32_t u[TILES][2];
  };
  auto read = [=](int row) {
    Read read;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int at = row + g + 8 * h;
      size_t token = mine.start + at;
      bool there = at < end && channel < width;
      read.dy[h] = there ? *reinterpret_cast<const uint2*>(dy + token * width + channel) : make_uint2(0, 0);
#pragma unroll
      for (int n = 0; n < TILES; n++) {
        const bf16* from = u + token * stride + n * 8 + 2 * t;
        read.u[n][h] = at < end ? *reinterpret_cast<const uint32_t*>(from) : 0;
      }
    }
    return read;
  };

  float sum[TILES][4] = {};
  Read next = read(begin);
  for (int row = begin; row < end; row += 16) {
    Read now = next;
    next = read(row + 16);
    uint32_t left[4] = {transposed(now.dy[0].x), transposed(now.dy[0].y), transposed(now.dy[1].x),
                        transposed(now.dy[1].y)};
#pragma unroll
    for (int n = 0; n < TILES; n++) mma(sum[n], left, transposed(now.u[n][0]), transposed(now.u[n][1]));
  }

  size_t chunk = chunks[blockIdx.z] + blockIdx.y;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int out = first + g / 2 * 4 + g % 2 + 2 * h;
    if (out >= width) continue;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      float2* to = reinterpret_cast<float2*>(partial + (chunk * all + out) * RANK + n * 8 + 2 * t);
      *to = make_float2(sum[n][2 * h], sum[n][2 * h + 1]);
    }
  }
}

#define LORA_B_GRADIENT(RANK)                                                                                          \
  KERNEL __launch_bounds__(WARPS * 32)                                                                                 \
      lora_b_gradient_r##RANK(const bf16* dy0, const bf16* dy1, const bf16* dy2, const bf16* u0, const bf16* u1,       \
                              const bf16* u2, float* partial, const uint32_t* starts, const uint32_t* chunks,          \
                              int width0, int width1, int width2, int stride) {                                        \
    Place mine = place<WARPS * CHANNELS>(blockIdx.x, width0, width1);                                                  \
    int i = mine.adapter;                                                                                              \
    partial += (size_t)of(i, 0, width0, width0 + width1) * RANK;                                                       \
    lora_b_gradient<RANK>(of(i, dy0, dy1, dy2), of(i, u0, u1, u2), partial, starts, chunks, mine.block,                \
                          of(i, width0, width1, width2), width0 + width1 + width2, stride);                            \
  }
LORA_B_GRADIENT(8)
LORA_B_GRADIENT(16)
LORA_B_GRADIENT(32)
LORA_B_GRADIENT(64)
