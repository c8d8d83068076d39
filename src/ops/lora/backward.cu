// The gradients behind an adapter's dropout, of up to three adapters of one input: dx += dropout'(du · A), in place,
// and dA = duᵀ · dropout(x). One pass over x and dx, which draws each mask once for both; neither dropped copies nor
// du · A are ever in memory.
//
// x, dx (rows, width) bf16, dx perhaps null; a (adapters · rank, width) bf16; du0 to du2 (rows, rank) bf16, one for
// each adapter. Sequence s has rows starts[s] to starts[s + 1] and chunks of TOKENS rows chunks[s] to chunks[s + 1];
// steps (adapters, sequences) pairs of words. partial (all chunks, adapters, rank, width) f32: each chunk's dAs. width
// is a multiple of 8. grid = (blocks of 128 channels, chunks of the longest sequence, sequences), 256 threads.
//
// A warp has 16 channels, of which a lane has 4 neighbouring ones (a block of the generator) of two rows, and goes
// through its chunk 16 rows at a time. Columns of both products are ordered so that what a lane has of x, dx and du ·
// A are these; transposed in registers, dropped x is the right operand of duᵀ · x. A and the sums of dA stay in
// registers. dx is rounded once for all adapters. Then `lora_backward_sum` adds the chunks in order: the bits of a
// sequence's gradients depend on the sequence alone. Most instructions are the generator's.
#include "../cuda/elements.cuh"
#include "../cuda/span.cuh"
#include "mask.cuh"
#include "place.cuh"

constexpr int TOKENS = 256, WARPS = 8, CHANNELS = 16;

// What a warp has of one adapter: A as right operands of du · A, whose tile h has as its columns 2t and 2t + 1 the
// channels 4t + 2h and 4t + 2h + 1; and the sums of dA, whose tiles have the same columns. Of rank 8 the upper ranks of
// a tile are zeros.
template <int RANK>
struct Adapter {
  static constexpr int K = (RANK + 15) / 16;
  uint32_t a[K][2][2];
  float grad[K][2][4];

  // `from` begins at the warp's first channel, of which `valid` are there.
  __device__ __forceinline__ void begin(const bf16* from, int width, int valid) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < K * 4; i++) {
      int k = i / 4, h = i / 2 % 2, upper = i % 2;
      int channel = g / 2 * 4 + 2 * h + g % 2, rank = k * 16 + upper * 8 + 2 * t;
      bool read = channel < valid && rank < RANK;
      const bf16* at = from + (size_t)rank * width + channel;
      a[k][h][upper] = read ? pack2(to_float(at[0]), to_float(at[width])) : 0;
#pragma unroll
      for (int e = 0; e < 2; e++) grad[k][h][upper * 2 + e] = 0;
    }
  }

  // Ranks from 16 k on of 16 rows of du, of which `valid` are there: the left operand of du · A.
  static __device__ __forceinline__ void load(uint32_t (&left)[4], const bf16* du, int k, int valid) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int row = g + i % 2 * 8, rank = k * 16 + i / 2 * 8 + 2 * t;
      bool read = row < valid && rank < RANK;
      left[i] = read ? *reinterpret_cast<const uint32_t*>(du + row * RANK + rank) : 0;
    }
  }
};

template <int RANK, int ADAPTERS>
__device__ __forceinline__ void lora_backward(const bf16* x, bf16* dx, const bf16* a, const bf16* du0, const bf16* du1,
                                              const bf16* du2, float* partial, const uint32_t* starts,
                                              const uint32_t* chunks, const uint32_t* steps, int width, uint64_t seed,
                                              uint32_t stream, float p, float scale) {
  constexpr int K = Adapter<RANK>::K;
  Span mine = span(starts, blockIdx.z);
  int begin = blockIdx.y * TOKENS, end = min(begin + TOKENS, mine.length);
  int first = (blockIdx.x * WARPS + threadIdx.x / 32) * CHANNELS;
  if (begin >= end || first >= width) return;
  int g = threadIdx.x % 32 / 4, channel = first + threadIdx.x % 4 * 4;
  bool inside = channel < width;

  Adapter<RANK> adapters[ADAPTERS];
#pragma unroll
  for (int i = 0; i < ADAPTERS; i++) adapters[i].begin(a + (size_t)i * RANK * width + first, width, width - first);

  for (int row = begin; row < end; row += 16) {
    uint2 in[2];
    float sum[2][4];
    auto at = [=](int h) { return (size_t)(mine.start + row + g + 8 * h) * width + channel; };
    auto there = [=](int h) { return inside && row + g + 8 * h < end; };
#pragma unroll
    for (int h = 0; h < 2; h++) {
      in[h] = there(h) ? *reinterpret_cast<const uint2*>(x + at(h)) : make_uint2(0, 0);
      uint2 out = dx && there(h) ? *reinterpret_cast<const uint2*>(dx + at(h)) : make_uint2(0, 0);
      float2 low = unpack2(out.x), high = unpack2(out.y);
      sum[h][0] = low.x, sum[h][1] = low.y, sum[h][2] = high.x, sum[h][3] = high.y;
    }
#pragma unroll
    for (int i = 0; i < ADAPTERS; i++) {
      Adapter<RANK>& adapter = adapters[i];
      const bf16* du = (i == 0 ? du0 : i == 1 ? du1 : du2) + (size_t)(mine.start + row) * RANK;
      Mask mask(seed, stream, steps + 2 * (i * gridDim.z + blockIdx.z), p, scale);
      Words words[2];
      uint2 dropped[2];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        words[h] = mask.draw(row + g + 8 * h, width, channel);
        dropped[h] = mask.drop(in[h], words[h]);
      }
      // Tokens down, channels across.
      uint32_t right[2][2] = {{transposed(dropped[0].x), transposed(dropped[1].x)},
                              {transposed(dropped[0].y), transposed(dropped[1].y)}};
      float back[2][4] = {};
#pragma unroll
      for (int k = 0; k < K; k++) {
        uint32_t left[4];
        Adapter<RANK>::load(left, du, k, end - row);
        uint32_t down[4] = {transposed(left[0]), transposed(left[2]), transposed(left[1]), transposed(left[3])};
#pragma unroll
        for (int h = 0; h < 2; h++) {
          mma(back[h], left, adapter.a[k][h][0], adapter.a[k][h][1]);
          mma(adapter.grad[k][h], down, right[h][0], right[h][1]);
        }
      }
#pragma unroll
      for (int e = 0; e < 8; e++) {
        int h = e / 4, c = e % 4;
        sum[h][c] += mask.drop(back[c / 2][2 * h + c % 2], words[h].w[c]);
      }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint2 out = make_uint2(pack2(sum[h][0], sum[h][1]), pack2(sum[h][2], sum[h][3]));
      if (dx && there(h)) *reinterpret_cast<uint2*>(dx + at(h)) = out;
    }
  }

  if (!inside) return;
#pragma unroll
  for (int i = 0; i < ADAPTERS; i++) {
    size_t place = (size_t)(chunks[blockIdx.z] + blockIdx.y) * ADAPTERS + i;
#pragma unroll
    for (int e = 0; e < K * 2; e++) {
      const auto& grad = adapters[i].grad[e / 2];
      int rank = e * 8 + g, upper = e % 2 * 2;
      float4 four = make_float4(grad[0][upper], grad[0][upper + 1], grad[1][upper], grad[1][upper + 1]);
      if (rank < RANK) *reinterpret_cast<float4*>(partial + (place * RANK + rank) * width + channel) = four;
    }
  }
}

#define LORA_BACKWARD(RANK, ADAPTERS)                                                                                  \
  KERNEL __launch_bounds__(WARPS * 32) lora_backward_r##RANK##_x##ADAPTERS(                                            \
      const bf16* x, bf16* dx, const bf16* a, const bf16* du0, const bf16* du1, const bf16* du2, float* partial,       \
      const uint32_t* starts, const uint32_t* chunks, const uint32_t* steps, int width, uint64_t seed,                 \
      uint32_t stream, float p, float scale) {                                                                         \
    lora_backward<RANK, ADAPTERS>(x, dx, a, du0, du1, du2, partial, starts, chunks, steps, width, seed, stream, p,     \
                                  scale);                                                                              \
  }
#define LORA_BACKWARD_EACH(RANK) LORA_BACKWARD(RANK, 1) LORA_BACKWARD(RANK, 2) LORA_BACKWARD(RANK, 3)
LORA_BACKWARD_EACH(8)
LORA_BACKWARD_EACH(16)
LORA_BACKWARD_EACH(32)
LORA_BACKWARD_EACH(64)

// Gradients of up to three adapters (dA or dB, n numbers in all), one behind the other: what stood there, and each
// sequence's sum of its chunks, in turn. partial (all chunks, n); before0 to before2, perhaps null, have n0, n1 and the
// remaining numbers, all of them multiples of 4.
KERNEL lora_backward_sum(const float* partial, const float* before0, const float* before1, const float* before2,
                         float* total, const uint32_t* chunks, int sequences, size_t n, size_t n0, size_t n1) {
  size_t step = gridDim.x * (size_t)blockDim.x * 4;
  for (size_t i = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) * 4; i < n; i += step) {
    int adapter = i < n0 ? 0 : i < n0 + n1 ? 1 : 2;
    const float* before = of(adapter, before0, before1, before2);
    Numbers<4> sum = {};
    if (before) sum = load<4>(before + i - of(adapter, (size_t)0, n0, n0 + n1));
    for (int s = 0; s < sequences; s++) {
      Numbers<4> of_sequence = {};
      for (uint32_t chunk = chunks[s]; chunk < chunks[s + 1]; chunk++) {
        Numbers<4> v = load<4>(partial + chunk * n + i);
        for (int j = 0; j < 4; j++) of_sequence.x[j] += v.x[j];
      }
      for (int j = 0; j < 4; j++) sum.x[j] += of_sequence.x[j];
    }
    store(total + i, sum);
  }
}
