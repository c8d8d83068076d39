// Activations of the CLS head: exact (erf) GELU (Hendrycks and Gimpel, arXiv 1606.08415), ReLU, tanh; and their
// backward passes.
//
// n f32 elements: one row a record, so the arithmetic is f64, rounded once, as on the CPU. kind: 0 GELU, 1 ReLU, 2
// tanh.
#include "../cuda/elements.cuh"

__device__ __forceinline__ double phi(double x) { return 0.5 * (1.0 + erf(x * 0.70710678118654752440)); }

KERNEL activation_forward_f32(const float* x, float* y, int kind, size_t n) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (size_t)blockDim.x) {
    double a = x[i];
    y[i] = (float)(kind == 0 ? a * phi(a) : kind == 1 ? (a > 0 || a != a ? a : 0.0) : tanh(a));
  }
}

KERNEL activation_backward_f32(const float* x, const float* dy, float* dx, int kind, size_t n) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (size_t)blockDim.x) {
    double a = x[i], d = dy[i];
    if (kind == 0) {
      d *= phi(a) + a * exp(-0.5 * a * a) * 0.39894228040143267794;
    } else if (kind == 1) {
      d = a > 0 ? d : 0.0;
    } else {
      d *= 1.0 - tanh(a) * tanh(a);
    }
    dx[i] = (float)d;
  }
}
