// Cross-entropy over rows of logits: loss = lse - logits[target]; dlogits = scale (softmax - onehot), written over the
// logits.
//
// logits (rows, vocab) bf16 or f32; targets (rows) u32, each below vocab; losses, lse, scales (rows) f32. A block a
// row, whole warps, two floats of dynamic shared memory a warp; grid = rows. The sum of exponentials is kept beside the
// greatest logit so far (Milakov and Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867), so that
// it takes one read. Arithmetic f32, exponentials by exp2 (2 ulp); sums in a fixed order.
//   forward   reads vocab elements a row
//   backward  reads and writes vocab elements a row
//   in_place  both: the second read of a row (251 KB at 128,256 bf16) comes from L2
// ~5 operations an element: bound by memory.
#include "../cuda/elements.cuh"

constexpr float LOG2_OF_E = 1.4426950408889634f;

// The greatest number seen and the sum of e^(x - greatest).
struct Running {
  float top, sum;
};

__device__ __forceinline__ Running merged(Running a, Running b) {
  float top = fmaxf(a.top, b.top);
  // Nothing seen yet, or only -inf: a difference of infinities would make a NaN.
  if (top == -INFINITY) return {top, a.sum + b.sum};
  return {top, a.sum * exp2_fast((a.top - top) * LOG2_OF_E) + b.sum * exp2_fast((b.top - top) * LOG2_OF_E)};
}

template <typename T>
__device__ __forceinline__ float log_sum_exp(const T* row, int vocab, bool wide, float* shared) {
  Running mine = {-INFINITY, 0};
  over_block<T>(vocab, wide, [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(row + i);
    float top = v.x[0];
    for (int j = 1; j < N; j++) top = fmaxf(top, v.x[j]);
    if (top > mine.top) {
      mine.sum *= exp2_fast((mine.top - top) * LOG2_OF_E);
      mine.top = top;
    }
    // A NaN is no maximum, but comes in here.
    for (int j = 0; j < N; j++) {
      if (mine.top > -INFINITY) mine.sum += exp2_fast((v.x[j] - mine.top) * LOG2_OF_E);
      else if (v.x[j] != v.x[j]) mine.sum = v.x[j];
    }
  });
  for (int bits = 16; bits > 0; bits >>= 1) {
    Running other = {__shfl_xor_sync(0xffffffffu, mine.top, bits), __shfl_xor_sync(0xffffffffu, mine.sum, bits)};
    mine = merged(mine, other);
  }
  int warps = blockDim.x / 32;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine.top, shared[warps + threadIdx.x / 32] = mine.sum;
  __syncthreads();
  Running all = {shared[0], shared[warps]};
  for (int w = 1; w < warps; w++) all = merged(all, {shared[w], shared[warps + w]});
  __syncthreads();
  return all.top + logf(all.sum);
}

// Each element becomes scale (e^(x - lse) - [it is the target]).
template <typename T>
__device__ __forceinline__ void softmax_inplace(T* row, int target, float lse, float scale, int vocab, bool wide) {
  over_block<T>(vocab, wide, [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>((const T*)row + i);
    for (int j = 0; j < N; j++)
      v.x[j] = exp2_fast((v.x[j] - lse) * LOG2_OF_E) * scale - ((int)i + j == target ? scale : 0.0f);
    store(row + i, v);
  });
}

template <typename T>
__device__ __forceinline__ void forward(const T* logits, const uint32_t* targets, float* losses, float* lse, int vocab,
                                        float* shared) {
  const T* row = logits + blockIdx.x * (size_t)vocab;
  float l = log_sum_exp(row, vocab, aligned(row), shared);
  if (threadIdx.x == 0) {
    lse[blockIdx.x] = l;
    losses[blockIdx.x] = l - number(row[targets[blockIdx.x]]);
  }
}

template <typename T>
__device__ __forceinline__ void backward(T* logits, const uint32_t* targets, const float* lse, const float* scales,
                                         int vocab) {
  T* row = logits + blockIdx.x * (size_t)vocab;
  softmax_inplace(row, (int)targets[blockIdx.x], lse[blockIdx.x], scales[blockIdx.x], vocab, aligned(row));
}

template <typename T>
__device__ __forceinline__ void in_place(T* logits, const uint32_t* targets, const float* scales, float* losses,
                                         int vocab, float* shared) {
  T* row = logits + blockIdx.x * (size_t)vocab;
  int target = (int)targets[blockIdx.x];
  float l = log_sum_exp((const T*)row, vocab, aligned(row), shared);
  if (threadIdx.x == 0) losses[blockIdx.x] = l - number(row[target]);
  // The target's logit is read before it is written over.
  __syncthreads();
  softmax_inplace(row, target, l, scales[blockIdx.x], vocab, aligned(row));
}

#define CROSS_ENTROPY(T, SUFFIX)                                                                                       \
  KERNEL cross_entropy_forward_##SUFFIX(const T* logits, const uint32_t* targets, float* losses, float* lse,           \
                                        int vocab) {                                                                   \
    DYNAMIC_SHARED(shared);                                                                                            \
    forward(logits, targets, losses, lse, vocab, (float*)shared);                                                      \
  }                                                                                                                    \
  KERNEL cross_entropy_backward_##SUFFIX(T* logits, const uint32_t* targets, const float* lse, const float* scales,    \
                                         int vocab) {                                                                  \
    backward(logits, targets, lse, scales, vocab);                                                                     \
  }                                                                                                                    \
  KERNEL cross_entropy_in_place_##SUFFIX(T* logits, const uint32_t* targets, const float* scales, float* losses,       \
                                         int vocab) {                                                                  \
    DYNAMIC_SHARED(shared);                                                                                            \
    in_place(logits, targets, scales, losses, vocab, (float*)shared);                                                  \
  }
CROSS_ENTROPY(bf16, bf16)
CROSS_ENTROPY(float, f32)
