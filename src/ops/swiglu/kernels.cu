// SwiGLU's gate (Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202): act = silu(gate) * up, and its backward
// pass.
//
// All arrays have n elements of one type T (bf16 or f32), contiguous. A thread takes 16 bytes of each array at a time;
// the arithmetic is f32, each result rounded once.
//   forward:  reads 2n, writes n elements;  ~6n operations and an exponential each
//   backward: reads 3n, writes 2n elements; ~12n operations and an exponential each
// Both are bound by memory. launch: 1-dimensional grid of any size, any number of threads.
#include "../cuda/elements.cuh"

// 1 / (1 + e^-x). Of -inf e^-x is inf and this 0.
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

template <typename T>
__device__ __forceinline__ void forward(const T* gate, const T* up, T* act, size_t n) {
  over_grid<T>(n, aligned(gate) && aligned(up) && aligned(act), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> g = load<N>(gate + i), u = load<N>(up + i);
    for (int j = 0; j < N; j++) g.x[j] = g.x[j] * sigmoid(g.x[j]) * u.x[j];
    store(act + i, g);
  });
}

template <typename T>
__device__ __forceinline__ void backward(const T* gate, const T* up, const T* dact, T* dgate, T* dup, size_t n) {
  bool wide = aligned(gate) && aligned(up) && aligned(dact) && aligned(dgate) && aligned(dup);
  over_grid<T>(n, wide, [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> g = load<N>(gate + i), u = load<N>(up + i), d = load<N>(dact + i);
    for (int j = 0; j < N; j++) {
      float s = sigmoid(g.x[j]), through = d.x[j] * u.x[j];
      u.x[j] = d.x[j] * (g.x[j] * s);
      d.x[j] = through * (s * (1.0f + g.x[j] * (1.0f - s)));
    }
    store(dgate + i, d);
    store(dup + i, u);
  });
}

KERNEL swiglu_forward_bf16(const bf16* gate, const bf16* up, bf16* act, size_t n) { forward(gate, up, act, n); }
KERNEL swiglu_forward_f32(const float* gate, const float* up, float* act, size_t n) { forward(gate, up, act, n); }
KERNEL swiglu_backward_bf16(const bf16* gate, const bf16* up, const bf16* dact, bf16* dgate, bf16* dup, size_t n) {
  backward(gate, up, dact, dgate, dup, n);
}
KERNEL swiglu_backward_f32(const float* gate, const float* up, const float* dact, float* dgate, float* dup, size_t n) {
  backward(gate, up, dact, dgate, dup, n);
}
