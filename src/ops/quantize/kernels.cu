// The matrices that quantised ones stand for, n numbers: nf4 (two codes a byte, the first in the upper half, a scale
// for each 64 numbers) and int8 (a byte a number, a scale a row). Reads 0.56 or 1 byte a number and writes 2 or 4:
// bound by memory.
#include "../cuda/elements.cuh"

// A thread takes 8 numbers, which have one scale: 64, and where it does so at all a row's length, is a multiple of 8.
constexpr int TOGETHER = 8;

__device__ __forceinline__ void store8(bf16* y, const Numbers<8>& v) { store(y, v); }
__device__ __forceinline__ void store8(float* y, const Numbers<8>& v) {
  for (int j = 0; j < 8; j += 4) store(y + j, Numbers<4>{{v.x[j], v.x[j + 1], v.x[j + 2], v.x[j + 3]}});
}

// value(i) is number i; numbers(i) are eight from i on, a multiple of 8.
template <typename T, typename One, typename Eight>
__device__ __forceinline__ void dequantize(T* y, size_t n, bool wide, One value, Eight numbers) {
  size_t me = blockIdx.x * (size_t)blockDim.x + threadIdx.x, count = gridDim.x * (size_t)blockDim.x;
  size_t packs = wide ? n / TOGETHER : 0;
  for (size_t pack = me; pack < packs; pack += count) store8(y + pack * TOGETHER, numbers(pack * TOGETHER));
  for (size_t i = packs * TOGETHER + me; i < n; i += count) put(y + i, value(i));
}

template <typename T>
__device__ __forceinline__ void nf4(const uint8_t* codes, const float* scales, T* y, size_t n) {
  // Threads of a warp read different entries: in shared memory each of the sixteen has a bank of its own.
  DYNAMIC_SHARED(memory);
  float* table = reinterpret_cast<float*>(memory);
  if (threadIdx.x == 0) {
    const float values[16] = {-1.0f,        -0.6961928f,  -0.52507305f,  -0.3949175f, -0.28444138f, -0.18477343f,
                              -0.091050036f, 0.0f,        0.0795803f,    0.1609302f,  0.2461123f,   0.33791524f,
                              0.44070983f,   0.562617f,   0.72295684f,   1.0f};
    for (int i = 0; i < 16; i++) table[i] = values[i];
  }
  __syncthreads();
  auto value = [=](size_t i) {
    uint8_t byte = codes[i / 2];
    return table[i % 2 ? byte & 15 : byte >> 4] * scales[i / 64];
  };
  auto numbers = [=](size_t i) {
    uint32_t bytes = *reinterpret_cast<const uint32_t*>(codes + i / 2);
    float scale = scales[i / 64];
    Numbers<8> v;
    for (int j = 0; j < 4; j++) {
      uint32_t byte = bytes >> (8 * j) & 255;
      v.x[2 * j] = table[byte >> 4] * scale, v.x[2 * j + 1] = table[byte & 15] * scale;
    }
    return v;
  };
  dequantize(y, n, aligned(codes) && aligned(y), value, numbers);
}

template <typename T>
__device__ __forceinline__ void int8(const int8_t* codes, const float* scales, T* y, size_t n, size_t columns) {
  auto number = [](int8_t code, float scale) { return (float)code * scale * 7.874016e-3f; };
  auto value = [=](size_t i) { return number(codes[i], scales[i / columns]); };
  auto numbers = [=](size_t i) {
    uint2 bytes = *reinterpret_cast<const uint2*>(codes + i);
    float scale = scales[i / columns];
    Numbers<8> v;
    for (int j = 0; j < 4; j++) {
      v.x[j] = number((int8_t)(bytes.x >> (8 * j) & 255), scale);
      v.x[4 + j] = number((int8_t)(bytes.y >> (8 * j) & 255), scale);
    }
    return v;
  };
  dequantize(y, n, aligned(codes) && aligned(y) && columns % TOGETHER == 0, value, numbers);
}

// `memory` has room for 16 floats.
KERNEL dequantize_nf4_bf16(const uint8_t* codes, const float* scales, bf16* y, size_t n) { nf4(codes, scales, y, n); }
KERNEL dequantize_nf4_f32(const uint8_t* codes, const float* scales, float* y, size_t n) { nf4(codes, scales, y, n); }
KERNEL dequantize_int8_bf16(const int8_t* codes, const float* scales, bf16* y, size_t n, size_t columns) {
  int8(codes, scales, y, n, columns);
}
KERNEL dequantize_int8_f32(const int8_t* codes, const float* scales, float* y, size_t n, size_t columns) {
  int8(codes, scales, y, n, columns);
}
