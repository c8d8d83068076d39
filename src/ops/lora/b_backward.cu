// du = scaling · dy · B of up to three adapters of one input (q, k, v), each with an output of its own.
//
// dy0 to dy2 (rows, width0 to width2) bf16; b0 to b2 (width, RANK) bf16; du0 to du2 (rows, RANK) bf16. Widths are
// multiples of 8. grid = (blocks of ROWS rows, adapters), 256 threads. Dynamic shared memory: 64 bytes a column of du.
//
// As forward.cu without masks: a block has 16 rows, its warps take 32 channels at a time, in turn, and a lane reads 8
// neighbouring channels of two rows, the left operands of two products. Of B a lane reads two neighbouring ranks, which
// are transposed in registers: row c of product m's right operand h is channel 8 (c / 2) + c % 2 + 4 m + 2 h.
#include "place.cuh"
#include "warps.cuh"

constexpr int ROWS = 16, WARPS = 8, STEP = 32;

template <int RANK>
__device__ __forceinline__ void lora_b_backward(const bf16* dy, const bf16* b, bf16* du, int rows, int width,
                                                float scaling) {
  constexpr int TILES = RANK / 8;
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  int first = blockIdx.x * ROWS;
  dy += (size_t)first * width;

  float c[TILES][4] = {};
  // Two at a time: more reads are on their way.
#pragma unroll 2
  for (int begin = threadIdx.x / 32 * STEP; begin < width; begin += WARPS * STEP) {
    int channel = begin + t * 8;
    uint4 row[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      bool read = first + g + 8 * h < rows && channel < width;
      const bf16* from = dy + (size_t)(g + 8 * h) * width + channel;
      row[h] = read ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    }
    uint32_t left[2][4] = {{row[0].x, row[1].x, row[0].y, row[1].y}, {row[0].z, row[1].z, row[0].w, row[1].w}};
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
      for (int m = 0; m < 2; m++) {
        uint32_t right[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
          int of_b = begin + g / 2 * 8 + g % 2 + 4 * m + 2 * h;
          const bf16* from = b + (size_t)of_b * RANK + n * 8 + 2 * t;
          right[h] = transposed(of_b < width ? *reinterpret_cast<const uint32_t*>(from) : 0);
        }
        mma(c[n], left[m], right[0], right[1]);
      }
    }
  }
  store_rows<WARPS, TILES>(du + (size_t)first * RANK, c, rows - first, scaling);
}

#define LORA_B_BACKWARD(RANK)                                                                                          \
  KERNEL __launch_bounds__(WARPS * 32)                                                                                 \
      lora_b_backward_r##RANK(const bf16* dy0, const bf16* dy1, const bf16* dy2, const bf16* b0, const bf16* b1,       \
                              const bf16* b2, bf16* du0, bf16* du1, bf16* du2, int rows, int width0, int width1,       \
                              int width2, float scaling) {                                                             \
    int i = blockIdx.y;                                                                                                \
    lora_b_backward<RANK>(of(i, dy0, dy1, dy2), of(i, b0, b1, b2), of(i, du0, du1, du2), rows,                         \
                          of(i, width0, width1, width2), scaling);                                                     \
  }
LORA_B_BACKWARD(8)
LORA_B_BACKWARD(16)
LORA_B_BACKWARD(32)
LORA_B_BACKWARD(64)
