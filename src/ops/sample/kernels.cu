// The next token of each row of logits by the rule of src/ops/sample/mod.rs, with the CPU's ids.
//
// logits (rows, vocab) bf16 or f32; draws (rows): temperature and top_p f64, the row's random word; chosen (rows) u32.
// A block a row, whole warps, at least two; grid = rows. Reads vocab elements a row for the greatest logit and once
// more where the temperature is above 0 (251 KB at 128,256 bf16: from L2, as later reads of a part are); ~25 f64
// operations an element of the second read, none of the first; 4 bytes a row go to the host.
//
// A weight is e^((logit - greatest) / temperature) as an integer in units of 2^-40: sums of integers have no order, so
// any number of threads finds the CPU's. It comes of the same f64 operations in the same order as there, each product
// fused with its sum.
//   greedy    the greatest logit, ties to the lowest id
//   top_p 1   a warp sums a part of the row; the block goes on in the part that holds the target, until that is one
//             token
//   top_p < 1 tokens of at least 2^-10 of the best one's weight are listed; for each, the mass of those before it (a
//             heavier one, or as heavy a one of lower id) tells whether the nucleus ends with it, and whether the
//             target falls on it
// FOR_HOST where no logit is finite, and where the list overflows or does not reach top_p: the CPU's sampler takes that
// row.
#include "../cuda/elements.cuh"

constexpr uint32_t FOR_HOST = 0xffffffffu;
constexpr int LISTED = 1024;
constexpr uint64_t HEAVY = 1ull << 30;

struct Draw {
  double temperature, top_p;
  uint64_t word;
};

struct Best {
  float logit;
  uint32_t id;
};

struct Shared {
  uint64_t sums[32];
  Best bests[32];
  uint64_t weights[LISTED], before[LISTED];
  uint32_t ids[LISTED];
  uint64_t mass;
  uint32_t count, id;
};

// A NaN is never better.
__device__ __forceinline__ Best better(Best a, Best b) {
  return b.logit > a.logit || (b.logit == a.logit && b.id < a.id) ? b : a;
}

// weight of src/ops/sample/weights.rs, operation for operation.
__device__ __forceinline__ uint64_t weight(float logit, float best, double temperature) {
  double x = (double)(logit - best) / temperature;
  if (!(x >= -28.5)) return 0;
  double shifted = fma(x, 1.4426950408889634, 6755399441055744.0);
  double n = shifted - 6755399441055744.0;
  double r = fma(n, -0.6931471805599453, x);
  double y = 1.0 / 39916800;
  y = fma(y, r, 1.0 / 3628800);
  y = fma(y, r, 1.0 / 362880);
  y = fma(y, r, 1.0 / 40320);
  y = fma(y, r, 1.0 / 5040);
  y = fma(y, r, 1.0 / 720);
  y = fma(y, r, 1.0 / 120);
  y = fma(y, r, 1.0 / 24);
  y = fma(y, r, 1.0 / 6);
  y = fma(y, r, 0.5);
  y = fma(y, r, 1.0);
  y = fma(y, r, 1.0);
  double scale = __longlong_as_double(((uint64_t)__double_as_longlong(shifted) << 52) + (1063ull << 52));
  return (uint64_t)__double_as_longlong(fma(y, scale, 4503599627370496.0)) & ((1ull << 52) - 1);
}

// The part of `mass` that the word's upper 24 bits are of 1, rounded down.
__device__ __forceinline__ uint64_t part_of(uint64_t mass, uint64_t word) { return __umul64hi(mass, word >> 8 << 40); }

template <typename T>
__device__ __forceinline__ Best greatest(const T* row, int vocab, Shared& shared) {
  Best best = {-INFINITY, FOR_HOST};
  over_block<T>(vocab, aligned(row), [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(row + i);
    for (int j = 0; j < N; j++) best = better(best, {v.x[j], (uint32_t)i + j});
  });
  for (int bits = 16; bits > 0; bits >>= 1)
    best = better(best, {__shfl_xor_sync(0xffffffffu, best.logit, bits), __shfl_xor_sync(0xffffffffu, best.id, bits)});
  if (threadIdx.x % 32 == 0) shared.bests[threadIdx.x / 32] = best;
  __syncthreads();
  for (unsigned w = 0; w < blockDim.x / 32; w++) best = better(best, shared.bests[w]);
  return best;
}

// The first token, by id, at which the running sum of weights exceeds the target.
template <typename T>
__device__ __forceinline__ uint32_t by_id(const T* row, int vocab, float best, Draw draw, Shared& shared) {
  uint32_t warps = blockDim.x / 32, warp = threadIdx.x / 32, begin = 0, end = vocab;
  uint64_t target = 0;
  while (end - begin > 1) {
    uint32_t part = (end - begin + warps - 1) / warps;
    if (part >= WIDTH<T>) part = (part + WIDTH<T> - 1) / WIDTH<T> * WIDTH<T>;
    uint32_t from = min(begin + warp * part, end), to = min(from + part, end);
    uint64_t sum = 0;
    share_out<T>(to - from, aligned(row + from), threadIdx.x % 32, 32, [&](size_t i, auto count) {
      constexpr int N = decltype(count)::value;
      Numbers<N> v = load<N>(row + from + i);
      for (int j = 0; j < N; j++) sum += weight(v.x[j], best, draw.temperature);
    });
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) shared.sums[warp] = sum;
    __syncthreads();
    if (begin == 0 && end == (uint32_t)vocab) {
      uint64_t total = 0;
      for (uint32_t w = 0; w < warps; w++) total += shared.sums[w];
      target = part_of(total, draw.word);
    }
    uint32_t w = 0;
    while (target >= shared.sums[w]) target -= shared.sums[w++];
    begin += w * part, end = min(begin + part, end);
    __syncthreads();
  }
  return begin;
}

// The token on which the target falls among the fewest that hold top_p of the mass, the heaviest first.
template <typename T>
__device__ __forceinline__ uint32_t of_nucleus(const T* row, int vocab, float best, Draw draw, Shared& shared) {
  if (threadIdx.x == 0) shared.count = 0, shared.mass = 0, shared.id = FOR_HOST;
  __syncthreads();
  uint64_t total = 0;
  over_block<T>(vocab, aligned(row), [&](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(row + i);
    for (int j = 0; j < N; j++) {
      uint64_t w = weight(v.x[j], best, draw.temperature);
      total += w;
      if (w < HEAVY) continue;
      // Places in the list differ from run to run; nothing depends on them.
      uint32_t at = atomicAdd(&shared.count, 1u);
      if (at < LISTED) shared.weights[at] = w, shared.ids[at] = (uint32_t)i + j;
    }
  });
  total = block_sum(total, shared.sums);
  uint32_t count = shared.count;
  if (count > LISTED) return FOR_HOST;
  uint64_t wanted = min(max((uint64_t)ceil(draw.top_p * (double)total), (uint64_t)1), total);
  for (uint32_t j = threadIdx.x; j < count; j += blockDim.x) {
    uint64_t w = shared.weights[j], before = 0;
    for (uint32_t i = 0; i < count; i++) {
      uint64_t other = shared.weights[i];
      if (other > w || (other == w && shared.ids[i] < shared.ids[j])) before += other;
    }
    shared.before[j] = before;
    if (before < wanted && wanted <= before + w) shared.mass = before + w;
  }
  __syncthreads();
  if (shared.mass == 0) return FOR_HOST;
  uint64_t target = part_of(shared.mass, draw.word);
  for (uint32_t j = threadIdx.x; j < count; j += blockDim.x)
    if (shared.before[j] <= target && target - shared.before[j] < shared.weights[j]) shared.id = shared.ids[j];
  __syncthreads();
  return shared.id;
}

template <typename T>
__device__ __forceinline__ void choose(const T* logits, const Draw* draws, uint32_t* chosen, int vocab,
                                       Shared& shared) {
  const T* row = logits + blockIdx.x * (size_t)vocab;
  Draw draw = draws[blockIdx.x];
  Best best = greatest(row, vocab, shared);
  uint32_t id = best.id;
  if (!(fabsf(best.logit) < INFINITY)) id = FOR_HOST;
  else if (draw.temperature > 0)
    id = draw.top_p >= 1 ? by_id(row, vocab, best.logit, draw, shared)
                         : of_nucleus(row, vocab, best.logit, draw, shared);
  if (threadIdx.x == 0) chosen[blockIdx.x] = id;
}

#define SAMPLE(T, SUFFIX)                                                                                              \
  KERNEL __launch_bounds__(1024) sample_##SUFFIX(const T* logits, const Draw* draws, uint32_t* chosen, int vocab) {    \
    __shared__ Shared shared;                                                                                          \
    choose(logits, draws, chosen, vocab, shared);                                                                      \
  }
SAMPLE(bf16, bf16)
SAMPLE(float, f32)
