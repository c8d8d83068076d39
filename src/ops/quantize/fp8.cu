// Rows as e4m3, each number over its row's scale: the row's largest magnitude over 448. A block takes a row and reads
// it twice, the second time out of the cache: bound by memory.
#include "../cuda/elements.cuh"

constexpr float LARGEST = 448.0f;
// The smallest normal f32: a smaller scale would have too few bits, and such a row is 0 at the scale 1.
constexpr float SMALLEST = 1.17549435e-38f;

// The block's greatest number, in every thread; a NaN is passed over. `shared` has a place for each warp; whole warps
// only.
__device__ __forceinline__ float block_max(float x, float* shared) {
  for (int bits = 16; bits > 0; bits >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  for (unsigned w = 0; w < blockDim.x / 32; w++) x = fmaxf(x, shared[w]);
  return x;
}

// Codes of N numbers from p on, which is a multiple of N bytes.
template <int N>
__device__ __forceinline__ void store_codes(uint8_t* p, const Numbers<N>& v) {
  if constexpr (N == 1) {
    *p = (uint8_t)pack2_e4m3(v.x[0], 0);
  } else {
    uint32_t words[N / 4];
    for (int i = 0; i < N / 4; i++) {
      words[i] = pack2_e4m3(v.x[4 * i], v.x[4 * i + 1]);
      words[i] |= pack2_e4m3(v.x[4 * i + 2], v.x[4 * i + 3]) << 16;
    }
    if constexpr (N == 4) {
      *reinterpret_cast<uint32_t*>(p) = words[0];
    } else {
      *reinterpret_cast<uint2*>(p) = make_uint2(words[0], words[1]);
    }
  }
}

// Row `blockIdx.x` of x (rows, columns), its numbers first multiplied by `factors` (columns) where there are any. A
// block beyond the rows writes a row of zeros, with which products are padded.
template <typename T>
__device__ __forceinline__ void e4m3_rows(const T* x, const float* factors, uint8_t* codes, float* scales, size_t rows,
                                          size_t columns) {
  DYNAMIC_SHARED(memory);
  size_t row = blockIdx.x;
  bool there = row < rows;
  codes += row * columns;
  if (there) x += row * columns;
  bool wide = aligned(x) && aligned(codes) && aligned(factors);
  auto numbers = [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(x + i);
    if (factors) {
      Numbers<N> by = load_f32<N>(factors + i);
      for (int j = 0; j < N; j++) v.x[j] *= by.x[j];
    }
    return v;
  };
  float top = 0;
  over_block<T>(there ? columns : 0, wide, [&](size_t i, auto count) {
    auto v = numbers(i, count);
    for (int j = 0; j < decltype(count)::value; j++) top = fmaxf(top, fabsf(v.x[j]));
  });
  float scale = block_max(top, reinterpret_cast<float*>(memory)) / LARGEST;
  if (!(scale >= SMALLEST)) scale = 1;
  if (threadIdx.x == 0) scales[row] = scale;
  over_block<T>(columns, wide, [&](size_t i, auto count) {
    Numbers<decltype(count)::value> v = {};
    if (there) {
      v = numbers(i, count);
      for (int j = 0; j < decltype(count)::value; j++) v.x[j] /= scale;
    }
    store_codes(codes + i, v);
  });
}

// `memory` has a float for each warp; `factors` may be null.
KERNEL e4m3_rows_bf16(const bf16* x, const float* factors, uint8_t* codes, float* scales, size_t rows, size_t columns) {
  e4m3_rows(x, factors, codes, scales, rows, columns);
}
KERNEL e4m3_rows_f32(const float* x, const float* factors, uint8_t* codes, float* scales, size_t rows, size_t columns) {
  e4m3_rows(x, factors, codes, scales, rows, columns);
}
