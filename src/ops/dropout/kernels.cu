// Inverted dropout whose mask is a function of (seed, sequence, position, channel) alone: the CPU's, bit for bit.
//
// x, y (rows, width) bf16 or f32. Sequence s has rows starts[s] to starts[s + 1]; its element i (counted from its first
// row) is kept where uniform(steps[s], i) >= p and scaled by `scale` = 1 / (1 - p). steps: pairs of words, the low one
// first. grid = (blocks, sequences). A thread draws 4 numbers at a time, which is what one block of the generator
// gives. Memory: reads and writes each element once; ~30 integer operations an element.
#include "../cuda/elements.cuh"
#include "philox.cuh"

template <typename T>
__device__ __forceinline__ void drop(const T* x, T* y, const uint32_t* starts, const uint32_t* steps, int width,
                                     uint64_t seed, uint32_t stream, float p, float scale) {
  int s = blockIdx.y;
  uint64_t step = steps[2 * s] | (uint64_t)steps[2 * s + 1] << 32;
  size_t first = (size_t)starts[s] * width, n = (size_t)(starts[s + 1] - starts[s]) * width;
  x += first, y += first;
  share_out<T>(n, aligned(x) && aligned(y), blockIdx.x * (size_t)blockDim.x + threadIdx.x,
               gridDim.x * (size_t)blockDim.x, [=](size_t i, auto count) {
                 constexpr int N = decltype(count)::value;
                 Numbers<N> v = load<N>(x + i);
                 Words words = random_block(seed, stream, step, i / 4);
                 for (int j = 0; j < N; j++) {
                   if (j > 0 && j % 4 == 0) words = random_block(seed, stream, step, (i + j) / 4);
                   uint32_t word = words.w[(i + j) % 4];
                   v.x[j] = to_unit(word) >= p ? v.x[j] * scale : 0.0f;
                 }
                 store(y + i, v);
               });
}

KERNEL dropout_bf16(const bf16* x, bf16* y, const uint32_t* starts, const uint32_t* steps, int width, uint64_t seed,
                    uint32_t stream, float p, float scale) {
  drop(x, y, starts, steps, width, seed, stream, p, scale);
}
KERNEL dropout_f32(const float* x, float* y, const uint32_t* starts, const uint32_t* steps, int width, uint64_t seed,
                   uint32_t stream, float p, float scale) {
  drop(x, y, starts, steps, width, seed, stream, p, scale);
}
