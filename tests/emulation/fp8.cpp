// Rows as e4m3 against the host's own: the same codes and scales.
#include "rows.h"

namespace fp8 {
#include "../../src/ops/quantize/fp8.cu"
}

template <typename T, typename Kernel>
static void test_rows(const char* type, Kernel kernel, size_t rows, size_t padded, size_t columns, bool factors,
                      size_t offset) {
  Row<T> x(rows * columns, Normals{3}, offset);
  // A row of zeros, one too small for a scale, one with an infinity and one with a NaN.
  for (size_t i = 0; i < columns; i++) {
    if (rows > 1) put(x.data() + columns + i, 0);
    if (rows > 2) put(x.data() + 2 * columns + i, i == 0 ? 1e-37f : -1e-38f);
  }
  if (rows > 4) put(x.data() + 3 * columns + columns / 2, INFINITY), put(x.data() + 4 * columns + columns / 3, NAN);
  Row<float> by(columns, Normals{0.02});
  Row<float> scales(padded);
  emu::Array<uint8_t> codes(padded * columns);
  for (size_t i = 0; i < padded * columns; i++) codes.data()[i] = 99;
  emu::launch(dim3(padded), dim3(64), 2 * sizeof(float),
              [&] { kernel(x.data(), factors ? by.data() : nullptr, codes.data(), scales.data(), rows, columns); });
  bool same = true;
  for (size_t row = 0; row < padded; row++) {
    std::vector<float> numbers(columns, 0.0f);
    float top = 0;
    for (size_t i = 0; i < columns && row < rows; i++) {
      numbers[i] = number(x.data()[row * columns + i]);
      if (factors) numbers[i] *= by.data()[i];
      if (fabsf(numbers[i]) > top) top = fabsf(numbers[i]);
    }
    float scale = top / 448;
    if (scale < 1.17549435e-38f) scale = 1;
    same &= scales.data()[row] == scale;
    for (size_t i = 0; i < columns; i++) same &= codes.data()[row * columns + i] == to_e4m3(numbers[i] / scale);
  }
  check(std::string("rows as e4m3, ") + type + ", " + std::to_string(rows) + " of " + std::to_string(padded) + " x " +
            std::to_string(columns) + (factors ? ", multiplied" : "") + (offset ? ", not aligned" : ""),
        same);
}

int main() {
  begin("fp8");
  for (bool factors : {false, true}) {
    for (size_t offset : {0, 1}) {
      for (auto [rows, padded, columns] :
           std::vector<std::array<size_t, 3>>{{1, 16, 16}, {5, 16, 48}, {16, 16, 1040}, {3, 3, 7}}) {
        test_rows<bf16>("bf16", fp8::e4m3_rows_bf16, rows, padded, columns, factors, offset);
        test_rows<float>("f32", fp8::e4m3_rows_f32, rows, padded, columns, factors, offset);
      }
    }
  }
  return end();
}
