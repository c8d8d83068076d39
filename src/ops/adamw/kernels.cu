// The gradients' norm, clipping by it, and AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv
// 1711.05101) in place: three launches for any number of tensors.
//
// All arrays f32; `parts`, `of_block` and `per_block` as ../cuda/parts.cuh has them. square_sums: a block's sum of
// squares, in f64 and in a fixed order. norm: one block adds those, in a fixed order; norm[0] is the root, norm[1] =
// min(1, max_norm / (norm + 1e-6)), or 1 where max_norm is 0. adamw: gradients times norm[1]; nothing is written where
// the norm is not finite. Each operation is rounded by itself in the order of the CPU's loop (no fused multiply-adds):
// with the same factor both give the same bits. Whole warps; the first two take an f64 of dynamic shared memory a warp.
// Memory: the norm reads n numbers, the update reads 4n and writes 3n; ~14n operations: bound by memory.
#include "../cuda/elements.cuh"
#include "../cuda/parts.cuh"

struct Part {
  const float* grad;
  float *param, *m, *v;
  uint64_t count, first_block;
};

// What a block has of its tensor.
struct Mine {
  const float* grad;
  float *param, *m, *v;
  size_t count;
};

__device__ __forceinline__ Mine of_this_block(const Part* parts, const uint32_t* of_block, int per_block) {
  Part part = parts[of_block[blockIdx.x]];
  Share share = share_of_block(part, per_block);
  return {in_global(part.grad + share.first), in_global(part.param + share.first), in_global(part.m + share.first),
          in_global(part.v + share.first), share.count};
}

KERNEL square_sums_f32(const Part* parts, const uint32_t* of_block, int per_block, double* sums) {
  DYNAMIC_SHARED(shared);
  Mine mine = of_this_block(parts, of_block, per_block);
  const float* x = mine.grad;
  double sum = 0;
  over_block<float>(mine.count, aligned(x), [&](size_t i, auto many) {
    constexpr int N = decltype(many)::value;
    Numbers<N> v = load<N>(x + i);
    for (int j = 0; j < N; j++) sum += (double)v.x[j] * v.x[j];
  });
  sum = block_sum(sum, (double*)shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

KERNEL norm_f64(const double* sums, double* norm, int blocks, double max_norm) {
  DYNAMIC_SHARED(shared);
  double sum = 0;
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) sum += sums[i];
  sum = sqrt(block_sum(sum, (double*)shared));
  if (threadIdx.x > 0) return;
  double factor = max_norm / (sum + 1e-6);
  norm[0] = sum;
  norm[1] = max_norm > 0 && factor < 1 ? factor : 1.0;
}

KERNEL adamw_f32(const Part* parts, const uint32_t* of_block, int per_block, const double* norm, float decay,
                 float one_minus_beta1, float beta2, float one_minus_beta2, float root2, float eps, float step_size) {
  if (!(norm[0] < INFINITY)) return;
  float clip = (float)norm[1];
  Mine mine = of_this_block(parts, of_block, per_block);
  const float* grad = mine.grad;
  float *param = mine.param, *m = mine.m, *v = mine.v;
  bool wide = aligned(param) && aligned(grad) && aligned(m) && aligned(v);
  over_block<float>(mine.count, wide, [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> p = load<N>((const float*)param + i), g = load<N>(grad + i);
    Numbers<N> a = load<N>((const float*)m + i), b = load<N>((const float*)v + i);
    for (int j = 0; j < N; j++) {
      float gradient = __fmul_rn(g.x[j], clip);
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
