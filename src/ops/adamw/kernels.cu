// AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101) in place, one pass over parameter,
// gradient and both moments; and sums of squares for the gradients' norm.
//
// All arrays f32, n elements. adamw: reads 4n, writes 3n numbers; ~14n operations, each rounded by itself in the order of the
// CPU's loop (no fused multiply-adds), so both give the same bits. square_sums: a block sums `per_block` elements in f64, in a
// fixed order; the host adds the blocks' sums in theirs. Whole warps, one f64 of dynamic shared memory a warp. Both are bound by
// memory.
#include "../cuda/elements.cuh"

KERNEL adamw_f32(float* param, const float* grad, float* m, float* v, float grad_scale, float decay, float one_minus_beta1, float beta2,
                 float one_minus_beta2, float root2, float eps, float step_size, size_t n) {
  bool wide = aligned(param) && aligned(grad) && aligned(m) && aligned(v);
  over_grid<float>(n, wide, [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> p = load<N>((const float*)param + i), g = load<N>(grad + i), a = load<N>((const float*)m + i), b = load<N>((const float*)v + i);
    for (int j = 0; j < N; j++) {
      float gradient = __fmul_rn(g.x[j], grad_scale);
      a.x[j] = __fadd_rn(a.x[j], __fmul_rn(one_minus_beta1, __fadd_rn(gradient, -a.x[j])));
      b.x[j] = __fadd_rn(__fmul_rn(b.x[j], beta2), __fmul_rn(__fmul_rn(one_minus_beta2, gradient), gradient));
      float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(b.x[j]), root2), eps);
      p.x[j] = __fadd_rn(__fmul_rn(p.x[j], decay), -__fdiv_rn(__fmul_rn(step_size, a.x[j]), root));
    }
    store(param + i, p);
    store(m + i, a);
    store(v + i, b);
  });
}

KERNEL square_sums_f32(const float* x, double* sums, int per_block, size_t n) {
  DYNAMIC_SHARED(shared);
  size_t first = blockIdx.x * (size_t)per_block, count = n - first < (size_t)per_block ? n - first : (size_t)per_block;
  x += first;
  double sum = 0;
  over_block<float>(count, aligned(x), [&](size_t i, auto many) {
    constexpr int N = decltype(many)::value;
    Numbers<N> v = load<N>(x + i);
    for (int j = 0; j < N; j++) sum += (double)v.x[j] * v.x[j];
  });
  sum = block_sum(sum, (double*)shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
