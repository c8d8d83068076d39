// Rows of an embedding table by id, and the table's gradient.
//
// table, dtable (vocab, n); y, dy (tokens, n). `forward` takes bf16 or f32 and keeps the type: grid = tokens, reads and
// writes n elements a token. `backward` (f32, for training the table) adds the rows of one id in their order: the host
// lists, for each id that occurs, its rows (`rows`, those of id i from starts[i] to starts[i + 1]); grid = ids that
// occur; the rest of the table was zeroed. No arithmetic to speak of: bound by memory.
#include "../cuda/elements.cuh"

template <typename T>
__device__ __forceinline__ void forward(const T* table, const uint32_t* ids, T* y, int n) {
  table += ids[blockIdx.x] * (size_t)n, y += blockIdx.x * (size_t)n;
  over_block<T>(n, aligned(table) && aligned(y), [=](size_t i, auto count) {
    constexpr int N = decltype(count)::value;
    store(y + i, load<N>(table + i));
  });
}

KERNEL embedding_forward_bf16(const bf16* table, const uint32_t* ids, bf16* y, int n) { forward(table, ids, y, n); }
KERNEL embedding_forward_f32(const float* table, const uint32_t* ids, float* y, int n) { forward(table, ids, y, n); }

KERNEL embedding_backward_f32(const float* dy, const uint32_t* ids, const uint32_t* starts, const uint32_t* rows,
                              float* dtable, int n) {
  uint32_t first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
  dtable += ids[blockIdx.x] * (size_t)n;
  for (int c = threadIdx.x; c < n; c += blockDim.x) {
    float sum = 0;
    for (uint32_t i = first; i < last; i++) sum += dy[rows[i] * (size_t)n + c];
    dtable[c] = sum;
  }
}
