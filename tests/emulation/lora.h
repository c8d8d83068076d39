// Cases of adapters, and their inputs and masks, those by Philox as its paper gives it.
#pragma once
#include "rows.h"

#include "../../src/ops/cuda/span.cuh"
#include "../../src/ops/lora/mask.cuh"
#include "../../src/ops/lora/place.cuh"
#include "../../src/ops/lora/warps.cuh"

// Each file has its own tile sizes.
namespace backward_file {
#include "../../src/ops/lora/backward.cu"
}

struct Case {
  const char* name;
  int rank, adapters, width;
  std::vector<int> lengths;
  float p;
};

static const uint64_t SEED = 0x123456789abcull;
static const uint32_t STREAM = 4;

// Philox4x32-10: counter (block, step low, step high, stream), the block's upper half in the stream's, key the seed.
static uint32_t philox_word(uint64_t step, uint64_t index) {
  uint64_t block = index / 4;
  uint32_t c[4] = {(uint32_t)block, (uint32_t)step, (uint32_t)(step >> 32), STREAM ^ (uint32_t)(block >> 32 << 16)};
  uint32_t key0 = (uint32_t)SEED, key1 = (uint32_t)(SEED >> 32);
  for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
    uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key1, (uint32_t)a};
    std::copy(next, next + 4, c);
  }
  return c[index % 4];
}

struct Inputs {
  const Case& c;
  int columns, rows = 0;
  std::vector<uint32_t> starts = {0};
  std::vector<bf16> x, a;
  // (adapters, sequences)
  std::vector<uint64_t> steps;
  float scale;

  explicit Inputs(const Case& c) : c(c), columns(c.adapters * c.rank), scale(1 / (1 - c.p)) {
    for (int length : c.lengths) starts.push_back(rows += length);
    x = normals_bf16((size_t)rows * c.width);
    a = normals_bf16((size_t)columns * c.width, 0.1f);
    for (size_t i = 0; i < c.adapters * c.lengths.size(); i++) steps.push_back(generator());
  }
  // Sequence s and nothing else.
  Inputs(const Inputs& all, Case& alone, int s) : c(alone), columns(all.columns), a(all.a), scale(all.scale) {
    alone = all.c;
    alone.lengths = {all.c.lengths[s]};
    starts.push_back(rows = all.c.lengths[s]);
    x = all.rows_of(all.x, s, c.width);
    for (int i = 0; i < c.adapters; i++) steps.push_back(all.steps[i * all.c.lengths.size() + s]);
  }
  template <typename T>
  std::vector<T> rows_of(const std::vector<T>& all, int s, int width) const {
    return {all.begin() + (size_t)starts[s] * width, all.begin() + (size_t)starts[s + 1] * width};
  }
  std::vector<uint32_t> step_words() const {
    std::vector<uint32_t> words;
    for (uint64_t step : steps) words.push_back((uint32_t)step), words.push_back((uint32_t)(step >> 32));
    return words;
  }
  bool kept(int adapter, int s, uint64_t index) const {
    return (philox_word(steps[adapter * c.lengths.size() + s], index) >> 8) / 16777216.0 >= c.p;
  }
  // Dropped x of an adapter, rounded.
  std::vector<double> dropped(int adapter) const {
    std::vector<double> y;
    for (size_t s = 0; s < c.lengths.size(); s++)
      for (size_t i = 0; i < (size_t)c.lengths[s] * c.width; i++) {
        float value = to_float(x[(size_t)starts[s] * c.width + i]) * scale;
        y.push_back(kept(adapter, s, i) ? rounded(value) : 0);
      }
    return y;
  }
};

static const Case CASES[] = {
    {"rank 8, 1 token", 8, 1, 8, {1}, 0.3f},
    {"rank 8 x 3, width 392", 8, 3, 392, {15, 16, 17, 0, 1, 35}, 0.05f},
    {"rank 16, width 264", 16, 1, 264, {33}, 0.5f},
    {"rank 16 x 2, width 72", 16, 2, 72, {31, 1, 255, 256, 257}, 0.1f},
    {"rank 32 x 2, width 32", 32, 2, 32, {18, 14}, 0.05f},
    {"rank 64 x 3, width 136", 64, 3, 136, {16, 47}, 0.1f},
    {"rank 16 x 3, width 96, no dropout", 16, 3, 96, {20, 3}, 0},
    {"rank 8 x 2, width 24, two chunks of dB", 8, 2, 24, {3, 513, 512, 530}, 0.05f},
};
