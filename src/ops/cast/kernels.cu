// f32 to bf16, to nearest and ties to even, and bf16 to f32. n elements; reads and writes each once: bound by memory.
#include "../cuda/elements.cuh"
#include "../cuda/parts.cuh"

// 8 numbers a thread: 32 bytes on the f32 side, 16 on the other.
KERNEL cast_f32_to_bf16(const float* x, bf16* y, size_t n) {
  over_grid<bf16>(n, aligned(x) && aligned(y), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    store(y + i, load_f32<N>(x + i));
  });
}

struct Part {
  const float* x;
  bf16* y;
  uint64_t count, first_block;
};

// Many arrays, as ../cuda/parts.cuh has them.
KERNEL cast_f32_to_bf16_each(const Part* parts, const uint32_t* of_block, int per_block) {
  Part part = parts[of_block[blockIdx.x]];
  Share share = share_of_block(part, per_block);
  const float* x = in_global(part.x + share.first);
  bf16* y = in_global(part.y + share.first);
  over_block<bf16>(share.count, aligned(x) && aligned(y), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    store(y + i, load_f32<N>(x + i));
  });
}

KERNEL cast_bf16_to_f32(const bf16* x, float* y, size_t n) {
  over_grid<bf16>(n, aligned(x) && aligned(y), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    Numbers<N> v = load<N>(x + i);
    if constexpr (N == 1) {
      y[i] = v.x[0];
    } else {
      for (int j = 0; j < N; j += 4)
        *reinterpret_cast<float4*>(y + i + j) = make_float4(v.x[j], v.x[j + 1], v.x[j + 2], v.x[j + 3]);
    }
  });
}
