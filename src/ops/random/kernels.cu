// Normal numbers (Box and Muller, A note on the generation of random normal deviates, 1958) of the generator of
// src/rng.rs.
//
// y (n) bf16 or f32: element i is deviation * cos(2 pi b) sqrt(-2 ln(1 - a)), a and b the 53-bit numbers that block i
// of the stream makes, in f64 and rounded once, as on the CPU. Writes each element once; some 200 operations of f64 an
// element, so bound by those: this is done once, when a random model is made.
#include "../cuda/elements.cuh"
#include "../dropout/philox.cuh"

// The upper 53 bits of two words as a number in [0, 1).
__device__ __forceinline__ double unit53(uint32_t high, uint32_t low) {
  return (double)(((uint64_t)high << 21) ^ (uint64_t)(low >> 11)) * (1.0 / 9007199254740992.0);
}

template <typename T>
__device__ __forceinline__ void normal(T* y, uint64_t seed, uint32_t stream, uint64_t step, float deviation, size_t n) {
  over_grid<T>(n, aligned(y), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v;
    for (int j = 0; j < N; j++) {
      Words words = random_block(seed, stream, step, i + j);
      double radius = sqrt(-2.0 * log(1.0 - unit53(words.w[0], words.w[1])));
      v.x[j] = deviation * (float)(radius * cos(6.283185307179586 * unit53(words.w[2], words.w[3])));
    }
    store(y + i, v);
  });
}

KERNEL normal_bf16(bf16* y, uint64_t seed, uint32_t stream, uint64_t step, float deviation, size_t n) {
  normal(y, seed, stream, step, deviation, n);
}
KERNEL normal_f32(float* y, uint64_t seed, uint32_t stream, uint64_t step, float deviation, size_t n) {
  normal(y, seed, stream, step, deviation, n);
}
