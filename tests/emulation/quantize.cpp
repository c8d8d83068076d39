// Dequantisation of nf4 and int8 against f32 arithmetic on the host: the same bits.
#include "rows.h"

namespace quantize {
#include "../../src/ops/quantize/kernels.cu"
}

static const float NF4[16] = {-1.0f,         -0.6961928f, -0.52507305f, -0.3949175f, -0.28444138f, -0.18477343f,
                              -0.091050036f, 0.0f,        0.0795803f,   0.1609302f,  0.2461123f,   0.33791524f,
                              0.44070983f,   0.562617f,   0.72295684f,  1.0f};

// `n` bytes behind `offset` others.
struct Bytes {
  Bytes(size_t n, size_t offset) : n(n), offset(offset), memory(n + offset) {
    for (size_t i = 0; i < n; i++) data()[i] = (uint8_t)generator();
  }
  uint8_t* data() const { return memory.data() + offset; }
  size_t n, offset;
  emu::Array<uint8_t> memory;
};

template <typename T>
static bool equal(const Row<T>& ours, const std::vector<float>& expected) {
  bool same = true;
  for (size_t i = 0; i < expected.size(); i++) same &= ours.wide(i) == Row<T>::held(expected[i]);
  return same;
}

template <typename T, typename Kernel>
static void test_nf4(const char* type, Kernel kernel, size_t n, size_t offset) {
  Bytes codes((n + 1) / 2, offset);
  Row<float> scales((n + 63) / 64, Normals{0.1f});
  Row<T> y(n);
  emu::launch(dim3(2), dim3(96), 64, [&] { kernel(codes.data(), scales.data(), y.data(), n); });
  std::vector<float> expected(n);
  for (size_t i = 0; i < n; i++) {
    uint8_t byte = codes.data()[i / 2];
    expected[i] = NF4[i % 2 ? byte & 15 : byte >> 4] * scales.data()[i / 64];
  }
  check(std::string("nf4 ") + type + ", " + std::to_string(n) + (offset ? ", not aligned" : ""), equal(y, expected));
}

template <typename T, typename Kernel>
static void test_int8(const char* type, Kernel kernel, size_t rows, size_t columns) {
  size_t n = rows * columns;
  Bytes codes(n, 0);
  Row<float> scales(rows, Normals{0.1f});
  Row<T> y(n);
  emu::launch(dim3(2), dim3(64), 0, [&] { kernel((const int8_t*)codes.data(), scales.data(), y.data(), n, columns); });
  std::vector<float> expected(n);
  for (size_t i = 0; i < n; i++)
    expected[i] = (float)(int8_t)codes.data()[i] * scales.data()[i / columns] * 7.874016e-3f;
  check(std::string("int8 ") + type + ", " + std::to_string(rows) + " x " + std::to_string(columns),
        equal(y, expected));
}

int main() {
  begin("quantize");
  for (size_t n : {1, 63, 64, 65, 192, 2056}) {
    for (size_t offset : {0, 1}) {
      test_nf4<bf16>("bf16", quantize::dequantize_nf4_bf16, n, offset);
      test_nf4<float>("f32", quantize::dequantize_nf4_f32, n, offset);
    }
  }
  for (auto [rows, columns] : std::vector<std::pair<size_t, size_t>>{{1, 1}, {3, 7}, {5, 64}, {4, 72}, {7, 129}}) {
    test_int8<bf16>("bf16", quantize::dequantize_int8_bf16, rows, columns);
    test_int8<float>("f32", quantize::dequantize_int8_f32, rows, columns);
  }
  return end();
}
