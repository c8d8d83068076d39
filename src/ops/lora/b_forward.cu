// y += u · Bᵀ, in place, of up to three adapters of one input (q, k, v), each with an output of its own.
//
// y0 to y2 (rows, width0 to width2) bf16; u0 to u2 (rows, RANK) bf16, their rows `stride` apart; b0 to b2 (width, RANK)
// bf16. Widths are multiples of 8, 0 of adapters that are not there; stride is even. grid = (blocks of 256 channels of
// each width, one width behind the other; blocks of ROWS rows), 256 threads.
//
// A warp has 32 channels, whose B stays in registers, and goes through the block's rows 16 at a time, reading 16 rows
// ahead. The columns of its four products are ordered so that a lane has 8 neighbouring channels of two rows: column c
// of product n is channel 8 (c / 2) + 2 n + c % 2. y is rounded once, as a product onto it would; a row's bits depend
// on nothing but the row.
#include "../cuda/elements.cuh"
#include "place.cuh"

constexpr int ROWS = 64, WARPS = 8, CHANNELS = 32;

template <int RANK>
__device__ __forceinline__ void lora_b_forward(bf16* y, const bf16* u, const bf16* b, int block, int rows, int width,
                                               int stride) {
  constexpr int K = (RANK + 15) / 16;
  int first = (block * WARPS + threadIdx.x / 32) * CHANNELS;
  int begin = blockIdx.y * ROWS, end = min(begin + ROWS, rows);
  if (first >= width) return;
  int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, channel = first + 8 * t;

  // Of rank 8 the upper ranks of a product are zeros.
  uint32_t right[4][K][2];
#pragma unroll
  for (int n = 0; n < 4; n++) {
#pragma unroll
    for (int k = 0; k < K * 2; k++) {
      int from = first + g / 2 * 8 + 2 * n + g % 2, rank = k * 8 + 2 * t;
      bool read = from < width && rank < RANK;
      right[n][k / 2][k % 2] = read ? *reinterpret_cast<const uint32_t*>(b + (size_t)from * RANK + rank) : 0;
    }
  }

  // Of 16 rows from `row` on, beyond `end` zeros.
  struct Read {
    uint4 y[2];
    uint32_t u[K][4];
  };
  auto there = [=](int row, int h) { return row + g + 8 * h < end; };
  auto read = [=](int row) {
    Read read;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      size_t at = row + g + 8 * h;
      bool inside = there(row, h) && channel < width;
      read.y[h] = inside ? *reinterpret_cast<const uint4*>(y + at * width + channel) : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int k = 0; k < K * 2; k++) {
        int rank = k * 8 + 2 * t;
        const bf16* from = u + at * stride + rank;
        read.u[k / 2][k % 2 * 2 + h] = there(row, h) && rank < RANK ? *reinterpret_cast<const uint32_t*>(from) : 0;
      }
    }
    return read;
  };

  Read next = read(begin);
  for (int row = begin; row < end; row += 16) {
    Read now = next;
    next = read(row + 16);
    float sum[4][4] = {};
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
      for (int k = 0; k < K; k++) mma(sum[n], now.u[k], right[n][k][0], right[n][k][1]);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      auto added = [&](uint32_t pair, int n) {
        float2 before = unpack2(pair);
        return pack2(before.x + sum[n][2 * h], before.y + sum[n][2 * h + 1]);
      };
      const uint4& old = now.y[h];
      uint4 out = make_uint4(added(old.x, 0), added(old.y, 1), added(old.z, 2), added(old.w, 3));
      bf16* to = y + (size_t)(row + g + 8 * h) * width + channel;
      if (there(row, h) && channel < width) *reinterpret_cast<uint4*>(to) = out;
    }
  }
}

#define LORA_B_FORWARD(RANK)                                                                                           \
  KERNEL __launch_bounds__(WARPS * 32)                                                                                 \
      lora_b_forward_r##RANK(bf16* y0, bf16* y1, bf16* y2, const bf16* u0, const bf16* u1, const bf16* u2,             \
                             const bf16* b0, const bf16* b1, const bf16* b2, int rows, int width0, int width1,         \
                             int width2, int stride) {                                                                 \
    Place mine = place<WARPS * CHANNELS>(blockIdx.x, width0, width1);                                                  \
    int i = mine.adapter;                                                                                              \
    lora_b_forward<RANK>(of(i, y0, y1, y2), of(i, u0, u1, u2), of(i, b0, b1, b2), mine.block, rows,                    \
                         of(i, width0, width1, width2), stride);                                                       \
  }
LORA_B_FORWARD(8)
LORA_B_FORWARD(16)
LORA_B_FORWARD(32)
LORA_B_FORWARD(64)
