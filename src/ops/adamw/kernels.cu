// The gradients' norm, clipping by it, and AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101)
// in place: three launches for any number of tensors.
//
// `parts` has each tensor's addresses, numbers and first block, `of_block` each block's tensor; a block takes `per_block` numbers
// of it. All arrays f32. square_sums: a block's sum of squares, in f64 and in a fixed order. norm: one block adds those, in a fixed
// order; norm[0] is the root, norm[1] = min(1, max_norm / (norm + 1e-6)), or 1 where max_norm is 0. adamw: gradients times norm[1];
// nothing is written where the norm is not finite. Each operation is rounded by itself in the order of the CPU's loop (no fused
// multiply-adds): with the same factor both give the same bits. Whole warps; the first two take one f64 of dynamic shared memory a warp.
// Memory: the norm reads n numbers, the update reads 4n and writes 3n; ~14n operations: bound by memory.
#include "../cuda/elements.cuh"

struct Part {
  const float* grad;
  float *param, *m, *v;
  uint64_t count, first_block;
};

// A block's numbers of its tensor.
struct Share {
  Part part;
  size_t count;
};

__device__ __forceinline__ Share share_of_block(const Part* parts, const uint32_t* of_block, int per_block) {
  Share mine = {parts[of_block[blockIdx.x]], 0};
  size_t first = (blockIdx.x - mine.part.first_block) * (size_t)per_block, left = mine.part.count - first;
  mine.count = left < (size_t)per_block ? left : (size_t)per_block;
  mine.part.grad = in_global(mine.part.grad + first), mine.part.param = in_global(mine.part.param + first);
  mine.part.m = in_global(mine.part.m + first), mine.part.v = in_global(mine.part.v + first);
  return mine;
}

KERNEL square_sums_f32(const Part* parts, const uint32_t* of_block, int per_block, double* sums) {
  DYNAMIC_SHARED(shared);
  Share mine = share_of_block(parts, of_block, per_block);
  const float* x = mine.part.grad;
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

KERNEL adamw_f32(const Part* parts, const uint32_t* of_block, int per_block, const double* norm, float decay, float one_minus_beta1,
                 float beta2, float one_minus_beta2, float root2, float eps, float step_size) {
  if (!(norm[0] < INFINITY)) return;
  float clip = (float)norm[1];
  Share mine = share_of_block(parts, of_block, per_block);
  const float* grad = mine.part.grad;
  float *param = mine.part.param, *m = mine.part.m, *v = mine.part.v;
  bool wide = aligned(param) && aligned(grad) && aligned(m) && aligned(v);
  over_block<float>(mine.count, wide, [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> p = load<N>((const float*)param + i), g = load<N>(grad + i), a = load<N>((const float*)m + i), b = load<N>((const float*)v + i);
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
