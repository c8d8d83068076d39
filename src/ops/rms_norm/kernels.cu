// RMSNorm (Zhang and Sennrich, Root Mean Square Layer Normalization, arXiv 1910.07467):
// rstd = 1 / sqrt(mean(x^2) + eps), y = w * x * rstd; the residual add before it; and the backward passes.
//
// x, y, dy, dx (rows, n) of one type T (bf16 or f32); w (n), rstd (rows) f32. A block a row, whole warps, one float of
// dynamic shared memory a warp; grid = rows. Arithmetic is f32, each result rounded once. A row is read twice, the
// second time from the cache (a row of 4,096 bf16 is 8 KB):
//   forward      memory: reads n, writes n elements;        ~4n operations
//   add_forward  memory: reads 2n, writes 2n elements;      ~5n operations  (unfused: reads 3n, writes 2n)
//   backward     memory: reads 2n (+n), writes n elements;  ~9n operations
// backward_weight is for training the norms themselves: a block 32 channels, its 8 warps each every 8th row, added in
// order. All are bound by memory.
#include "../cuda/elements.cuh"

// From here on `x` (which may have been written by this same block) to y; gives rstd.
template <typename T>
__device__ __forceinline__ void normalise(const T* x, const float* w, T* y, float* rstd, int n, float eps, bool wide,
                                          float* shared) {
  float sum = 0;
  over_block<T>(n, wide, [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(x + i);
    for (int j = 0; j < N; j++) sum += v.x[j] * v.x[j];
  });
  float r = 1.0f / sqrtf(block_sum(sum, shared) / n + eps);
  if (threadIdx.x == 0) *rstd = r;
  over_block<T>(n, wide, [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(x + i), scale = load_f32<N>(w + i);
    for (int j = 0; j < N; j++) v.x[j] = scale.x[j] * (v.x[j] * r);
    store(y + i, v);
  });
}

template <typename T>
__device__ __forceinline__ void forward(const T* x, const float* w, T* y, float* rstd, int n, float eps,
                                        float* shared) {
  size_t row = blockIdx.x * (size_t)n;
  x += row, y += row;
  normalise(x, w, y, rstd + blockIdx.x, n, eps, aligned(x) && aligned(y) && aligned(w), shared);
}

// sum = a + b as a T holds it; the norm is that of `sum`. Each thread reads in the second pass what it wrote in the
// first.
template <typename T>
__device__ __forceinline__ void add_forward(const T* a, const T* b, const float* w, T* sum, T* y, float* rstd, int n,
                                            float eps, float* shared) {
  size_t row = blockIdx.x * (size_t)n;
  a += row, b += row, sum += row, y += row;
  bool wide = aligned(a) && aligned(b) && aligned(sum) && aligned(y) && aligned(w);
  over_block<T>(n, wide, [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> u = load<N>(a + i), v = load<N>(b + i);
    for (int j = 0; j < N; j++) u.x[j] += v.x[j];
    store(sum + i, u);
  });
  normalise((const T*)sum, w, y, rstd + blockIdx.x, n, eps, wide, shared);
}

// dx = rstd * (w dy - x^ mean(w dy x^)) with x^ = x rstd; `residual`, where there is one, is added.
template <typename T>
__device__ __forceinline__ void backward(const T* x, const float* w, const float* rstd, const T* dy, const T* residual,
                                         T* dx, int n, float* shared) {
  size_t row = blockIdx.x * (size_t)n;
  x += row, dy += row, dx += row;
  if (residual) residual += row;
  bool wide = aligned(x) && aligned(dy) && aligned(dx) && aligned(w) && aligned(residual);
  float r = rstd[blockIdx.x], dot = 0;
  over_block<T>(n, wide, [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(x + i), d = load<N>(dy + i), scale = load_f32<N>(w + i);
    for (int j = 0; j < N; j++) dot += scale.x[j] * d.x[j] * (v.x[j] * r);
  });
  float mean = block_sum(dot, shared) / n;
  over_block<T>(n, wide, [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(x + i), d = load<N>(dy + i), scale = load_f32<N>(w + i);
    for (int j = 0; j < N; j++) d.x[j] = r * (scale.x[j] * d.x[j] - v.x[j] * r * mean);
    if (residual) {
      v = load<N>(residual + i);
      for (int j = 0; j < N; j++) d.x[j] += v.x[j];
    }
    store(dx + i, d);
  });
}

// dw = sum over rows of dy x rstd. 256 threads; grid = n / 32, rounded up; shared: 256 floats.
template <typename T>
__device__ __forceinline__ void backward_weight(const T* x, const float* rstd, const T* dy, float* dw, int rows, int n,
                                                float* shared) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.x * 32 + lane;
  float sum = 0;
  if (channel < n)
    for (size_t row = warp; row < (size_t)rows; row += 8)
      sum += number(dy[row * n + channel]) * (number(x[row * n + channel]) * rstd[row]);
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp == 0 && channel < n) {
    float total = 0;
    for (int w = 0; w < 8; w++) total += shared[w * 32 + lane];
    dw[channel] = total;
  }
}

#define RMS_NORM(T, SUFFIX)                                                                                            \
  KERNEL rms_norm_forward_##SUFFIX(const T* x, const float* w, T* y, float* rstd, int n, float eps) {                  \
    DYNAMIC_SHARED(shared);                                                                                            \
    forward(x, w, y, rstd, n, eps, (float*)shared);                                                                    \
  }                                                                                                                    \
  KERNEL rms_norm_add_forward_##SUFFIX(const T* a, const T* b, const float* w, T* sum, T* y, float* rstd, int n,       \
                                       float eps) {                                                                    \
    DYNAMIC_SHARED(shared);                                                                                            \
    add_forward(a, b, w, sum, y, rstd, n, eps, (float*)shared);                                                        \
  }                                                                                                                    \
  KERNEL rms_norm_backward_##SUFFIX(const T* x, const float* w, const float* rstd, const T* dy, const T* residual,     \
                                    T* dx, int n) {                                                                    \
    DYNAMIC_SHARED(shared);                                                                                            \
    backward(x, w, rstd, dy, residual, dx, n, (float*)shared);                                                         \
  }                                                                                                                    \
  KERNEL rms_norm_backward_weight_##SUFFIX(const T* x, const float* rstd, const T* dy, float* dw, int rows, int n) {   \
    DYNAMIC_SHARED(shared);                                                                                            \
    backward_weight(x, rstd, dy, dw, rows, n, (float*)shared);                                                         \
  }
RMS_NORM(bf16, bf16)
RMS_NORM(float, f32)
