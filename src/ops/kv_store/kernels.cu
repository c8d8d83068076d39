// Stores new tokens' keys and values in blocks of 64 tokens; gathers whole sequences' from them.
//
// A block is (layers, 2, kv_heads, 64, width) bf16, width >= d (the rest stays zero). `slots[token]` is the address of
// the token's place among the keys of layer 0, head 0 of its block, `offset` the elements before the layer. k, v
// (tokens, kv_heads, d): f32 or bf16 to store, bf16 to gather. grid (tokens, 2): keys, then values. Reads and writes
// each number once: bound by memory.
#include "../cuda/elements.cuh"

namespace {
constexpr int BLOCK = 64;

template <int N>
__device__ __forceinline__ Numbers<N> wide(const float* p) {
  return load_f32<N>(p);
}
template <int N>
__device__ __forceinline__ Numbers<N> wide(const bf16* p) {
  return load<N>(p);
}

// Offset of element i of a token's row (kv_heads, d) from the token's slot.
__device__ __forceinline__ size_t in_slot(size_t i, int d, int width) {
  int head = (int)i / d, channel = (int)i % d;
  return (size_t)head * (BLOCK * width) + channel;
}

template <typename T>
__device__ __forceinline__ void store_token(const T* k, const T* v, bf16* const* slots, int kv_heads, int d, int width,
                                            size_t offset) {
  const T* from = (blockIdx.y ? v : k) + blockIdx.x * (size_t)(kv_heads * d);
  bf16* to = in_global(slots[blockIdx.x]) + offset + blockIdx.y * (size_t)(kv_heads * BLOCK * width);
  over_block<bf16>(kv_heads * d, d % WIDTH<bf16> == 0 && aligned(from) && aligned(to), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    store(to + in_slot(i, d, width), wide<N>(from + i));
  });
}
}  // namespace

KERNEL kv_store_f32(const float* k, const float* v, bf16* const* slots, int kv_heads, int d, int width, size_t offset) {
  store_token(k, v, slots, kv_heads, d, width, offset);
}
KERNEL kv_store_bf16(const bf16* k, const bf16* v, bf16* const* slots, int kv_heads, int d, int width, size_t offset) {
  store_token(k, v, slots, kv_heads, d, width, offset);
}

KERNEL kv_gather(bf16* k, bf16* v, const bf16* const* slots, int kv_heads, int d, int width, size_t offset) {
  const bf16* from = in_global(slots[blockIdx.x]) + offset + blockIdx.y * (size_t)(kv_heads * BLOCK * width);
  bf16* to = (blockIdx.y ? v : k) + blockIdx.x * (size_t)(kv_heads * d);
  over_block<bf16>(kv_heads * d, d % WIDTH<bf16> == 0 && aligned(from) && aligned(to), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    store(to + i, load<N>(from + in_slot(i, d, width)));
  });
}
