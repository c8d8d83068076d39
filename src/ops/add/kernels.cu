// a += b, of bf16 or of f32: residual streams and sums of gradients. And y += bias for every row of y.
//
// n elements; reads 2n, writes n; one f32 addition each, rounded once: bound by memory. bias (width) f32, y (rows,
// width).
#include "../cuda/elements.cuh"

template <typename T>
__device__ __forceinline__ void add(T* a, const T* b, size_t n) {
  over_grid<T>(n, aligned(a) && aligned(b), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> u = load<N>((const T*)a + i), v = load<N>(b + i);
    for (int j = 0; j < N; j++) u.x[j] += v.x[j];
    store(a + i, u);
  });
}

// grid = rows.
template <typename T>
__device__ __forceinline__ void add_bias(T* y, const float* bias, int width) {
  y += blockIdx.x * (size_t)width;
  over_block<T>(width, aligned(y) && aligned(bias), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> u = load<N>((const T*)y + i), v = load_f32<N>(bias + i);
    for (int j = 0; j < N; j++) u.x[j] += v.x[j];
    store(y + i, u);
  });
}

KERNEL add_bf16(bf16* a, const bf16* b, size_t n) { add(a, b, n); }
KERNEL add_f32(float* a, const float* b, size_t n) { add(a, b, n); }
KERNEL add_bias_bf16(bf16* y, const float* bias, int width) { add_bias(y, bias, width); }
KERNEL add_bias_f32(float* y, const float* bias, int width) { add_bias(y, bias, width); }
