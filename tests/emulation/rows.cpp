// The kernels with a block a row against f64: RMSNorm and cross-entropy.
#include "rows.h"

namespace norm {
#include "../../src/ops/rms_norm/kernels.cu"
}
namespace ce {
#include "../../src/ops/cross_entropy/kernels.cu"
}

constexpr int THREADS = 96;
constexpr float EPS = 1e-5f;

struct NormReference {
  std::vector<double> y, rstd, dx, dw;
  NormReference(const std::vector<double>& x, const std::vector<double>& w, const std::vector<double>& dy, int n)
      : y(x.size()), rstd(x.size() / n), dx(x.size()), dw(n) {
    for (size_t row = 0; row < rstd.size(); row++) {
      const double *v = &x[row * n], *d = &dy[row * n];
      double sum = 0, dot = 0;
      for (int c = 0; c < n; c++) sum += v[c] * v[c];
      double r = rstd[row] = 1 / sqrt(sum / n + (double)EPS);
      for (int c = 0; c < n; c++) dot += w[c] * d[c] * v[c] * r;
      for (int c = 0; c < n; c++) {
        y[row * n + c] = w[c] * v[c] * r;
        dx[row * n + c] = r * (w[c] * d[c] - v[c] * r * dot / n);
        dw[c] += d[c] * v[c] * r;
      }
    }
  }
};

template <typename T>
struct NormKernels {
  void (*forward)(const T*, const float*, T*, float*, int, float);
  void (*add_forward)(const T*, const T*, const float*, T*, T*, float*, int, float);
  void (*backward)(const T*, const float*, const float*, const T*, const T*, T*, int);
  void (*backward_weight)(const T*, const float*, const T*, float*, int, int);
};

template <typename T>
static void test_norm(const char* type, const NormKernels<T>& k, int rows, int n) {
  std::string name = std::string("rms_norm ") + type + ", " + std::to_string(rows) + " x " + std::to_string(n);
  size_t all = (size_t)rows * n;
  Row<T> x(all, Normals{2}), other(all, Normals()), dy(all, Normals()), residual(all, Normals()), y(all), sum(all),
      y2(all), dx(all), dx2(all);
  Row<float> w(n, Normals()), rstd(rows), rstd2(rows), dw(n);
  int shared = 4 * THREADS / 32;
  emu::launch(dim3(rows), dim3(THREADS), shared, [&] { k.forward(x.data(), w.data(), y.data(), rstd.data(), n, EPS); });
  NormReference expected(x.all(), w.all(), dy.all(), n);
  close<T>(name + ", y", y.all(), expected.y);
  close<float>(name + ", rstd", rstd.all(), expected.rstd);

  emu::launch(dim3(rows), dim3(THREADS), shared,
              [&] { k.backward(x.data(), w.data(), rstd.data(), dy.data(), nullptr, dx.data(), n); });
  close<T>(name + ", dx", dx.all(), expected.dx, 1);
  emu::launch(dim3(rows), dim3(THREADS), shared,
              [&] { k.backward(x.data(), w.data(), rstd.data(), dy.data(), residual.data(), dx2.data(), n); });
  std::vector<double> with = expected.dx;
  for (size_t i = 0; i < all; i++) with[i] += residual.wide(i);
  close<T>(name + ", dx + residual", dx2.all(), with, 1);
  emu::launch(dim3((n + 31) / 32), dim3(256), 1024,
              [&] { k.backward_weight(x.data(), rstd.data(), dy.data(), dw.data(), rows, n); });
  close<float>(name + ", dw", dw.all(), expected.dw);

  // The norm after a residual connection has the bits of the norm of the sum.
  emu::launch(dim3(rows), dim3(THREADS), shared, [&] {
    k.add_forward(x.data(), other.data(), w.data(), sum.data(), y2.data(), rstd2.data(), n, EPS);
  });
  bool sums = true;
  for (size_t i = 0; i < all; i++) sums &= sum.wide(i) == Row<T>::held((float)x.wide(i) + (float)other.wide(i));
  emu::launch(dim3(rows), dim3(THREADS), shared,
              [&] { k.forward(sum.data(), w.data(), y.data(), rstd.data(), n, EPS); });
  check(name + ", after an addition", sums && y.all() == y2.all() && rstd.all() == rstd2.all());
}

template <typename T>
struct LossKernels {
  void (*forward)(const T*, const uint32_t*, float*, float*, int);
  void (*backward)(T*, const uint32_t*, const float*, const float*, int);
  void (*in_place)(T*, const uint32_t*, const float*, float*, int);
};

template <typename T>
static void test_loss(const char* type, const LossKernels<T>& k, int rows, int vocab, double size) {
  std::string name = std::string("cross_entropy ") + type + ", " + std::to_string(rows) + " x " + std::to_string(vocab);
  Row<T> logits((size_t)rows * vocab, Normals{size}), both((size_t)rows * vocab);
  memcpy(both.data(), logits.data(), sizeof(T) * rows * vocab);
  std::vector<uint32_t> targets(rows);
  std::vector<float> scales(rows);
  std::vector<double> losses, lses, gradient;
  for (int row = 0; row < rows; row++) {
    targets[row] = row == 0 ? vocab - 1 : row * 31 % vocab, scales[row] = 0.25f + row / 64.0f;
    double top = -INFINITY, sum = 0;
    for (int c = 0; c < vocab; c++) top = std::max(top, logits.wide((size_t)row * vocab + c));
    for (int c = 0; c < vocab; c++) sum += exp(logits.wide((size_t)row * vocab + c) - top);
    double lse = top + log(sum);
    lses.push_back(lse), losses.push_back(lse - logits.wide((size_t)row * vocab + targets[row]));
    for (int c = 0; c < vocab; c++)
      gradient.push_back(scales[row] * (exp(logits.wide((size_t)row * vocab + c) - lse) - (c == (int)targets[row])));
  }
  Row<float> loss(rows), lse(rows), loss2(rows);
  emu::Array<uint32_t> t(targets);
  emu::Array<float> s(scales);
  int shared = 8 * THREADS / 32;
  emu::launch(dim3(rows), dim3(THREADS), shared,
              [&] { k.forward(logits.data(), t.data(), loss.data(), lse.data(), vocab); });
  close<float>(name + ", loss", loss.all(), losses, size);
  close<float>(name + ", lse", lse.all(), lses);
  emu::launch(dim3(rows), dim3(THREADS), 0, [&] { k.backward(logits.data(), t.data(), lse.data(), s.data(), vocab); });
  // Of a likely target it is the small difference of numbers near 1, the larger one off by lse's rounding.
  close<T>(name + ", dlogits", logits.all(), gradient, 2);
  emu::launch(dim3(rows), dim3(THREADS), shared,
              [&] { k.in_place(both.data(), t.data(), s.data(), loss2.data(), vocab); });
  check(name + ", at once, same bits", loss.all() == loss2.all() && logits.all() == both.all());
}

static void test_nan() {
  // One, and all that a thread reads at first.
  for (auto [at, count] : std::vector<std::pair<int, int>>{{0, 1}, {3, 1}, {999, 1}, {0, 4}, {8, 4}, {996, 4}}) {
    Row<float> logits(1000, Normals()), loss(1), lse(1);
    for (int i = 0; i < count; i++) logits.data()[at + i] = NAN;
    emu::Array<uint32_t> target(std::vector<uint32_t>{5});
    emu::launch(dim3(1), dim3(THREADS), 24,
                [&] { ce::cross_entropy_forward_f32(logits.data(), target.data(), loss.data(), lse.data(), 1000); });
    check("cross_entropy, " + std::to_string(count) + " NaN at " + std::to_string(at) + " not hidden",
          std::isnan(lse.wide(0)));
  }
  // A masked vocabulary: -inf everywhere but at three places.
  Row<float> logits(1000), loss(1), lse(1);
  for (int i = 0; i < 1000; i++) logits.data()[i] = -INFINITY;
  logits.data()[5] = 1, logits.data()[6] = 2, logits.data()[990] = 1;
  emu::Array<uint32_t> target(std::vector<uint32_t>{5});
  emu::launch(dim3(1), dim3(THREADS), 24,
              [&] { ce::cross_entropy_forward_f32(logits.data(), target.data(), loss.data(), lse.data(), 1000); });
  close<float>("cross_entropy, -inf elsewhere", loss.all(), {log(2 * exp(1.0) + exp(2.0)) - 1});
}

int main() {
  begin("rows");
  NormKernels<bf16> norm_bf16 = {norm::rms_norm_forward_bf16, norm::rms_norm_add_forward_bf16,
                                 norm::rms_norm_backward_bf16, norm::rms_norm_backward_weight_bf16};
  NormKernels<float> norm_f32 = {norm::rms_norm_forward_f32, norm::rms_norm_add_forward_f32,
                                 norm::rms_norm_backward_f32, norm::rms_norm_backward_weight_f32};
  for (auto [rows, n] : std::vector<std::pair<int, int>>{{1, 1}, {3, 63}, {2, 64}, {5, 65}, {17, 576}, {2, 4096}}) {
    test_norm("bf16", norm_bf16, rows, n);
    test_norm("f32", norm_f32, rows, n);
  }
  LossKernels<bf16> loss_bf16 = {ce::cross_entropy_forward_bf16, ce::cross_entropy_backward_bf16,
                                 ce::cross_entropy_in_place_bf16};
  LossKernels<float> loss_f32 = {ce::cross_entropy_forward_f32, ce::cross_entropy_backward_f32,
                                 ce::cross_entropy_in_place_f32};
  for (auto [rows, vocab] :
       std::vector<std::pair<int, int>>{{1, 2}, {3, 63}, {2, 64}, {3, 65}, {2, 49153}, {1, 128256}}) {
    test_loss("bf16", loss_bf16, rows, vocab, 5);
    test_loss("f32", loss_f32, rows, vocab, 5);
  }
  test_nan();
  return end();
}
