// The few of candle's kernels that clsgen's tensors come to, in plain loops: of those its build has only PTX.
// Parameters as in candle-kernels 0.11: `info` holds sizes and, for each operand, strides of `dims` dimensions; null is
// contiguous.
#include "device.h"

namespace {
template <typename T>
double wide(T x) { return x; }
double wide(bf16 x) { return to_float(x); }
template <typename T>
struct Narrow {
  static T of(double x) { return (T)x; }
};
template <>
struct Narrow<bf16> {
  static bf16 of(double x) { return to_bf16((float)x); }
};

// Where element i of an operand lies.
size_t place(size_t i, size_t dims, const size_t* info, int operand) {
  if (!info) return i;
  size_t at = 0;
  for (size_t d = dims; d-- > 0; i /= info[d]) at += i % info[d] * info[dims * (1 + operand) + d];
  return at;
}

template <typename T, double F(double)>
void unary(size_t n, size_t dims, const size_t* info, const T* x, T* y) {
  for (size_t i = 0; i < n; i++) y[i] = Narrow<T>::of(F(wide(x ? x[place(i, dims, info, 0)] : y[i])));
}
template <typename T>
void copied(size_t n, size_t dims, const size_t* info, const T* x, T* y) {
  for (size_t i = 0; i < n; i++) y[i] = x[place(i, dims, info, 0)];
}
template <typename T>
void affine(size_t n, size_t dims, const size_t* info, const T* x, T* y, T by, T plus) {
  for (size_t i = 0; i < n; i++)
    y[i] = Narrow<T>::of(wide(x ? x[place(i, dims, info, 0)] : y[i]) * wide(by) + wide(plus));
}
template <typename T, double F(double, double)>
void binary(size_t n, size_t dims, const size_t* info, const T* a, const T* b, T* y) {
  for (size_t i = 0; i < n; i++)
    y[i] = Narrow<T>::of(F(wide(a[place(i, dims, info, 0)]), wide(b[place(i, dims, info, 1)])));
}
template <typename S, typename T>
void cast(size_t n, size_t dims, const size_t* info, const S* x, T* y) {
  for (size_t i = 0; i < n; i++) y[i] = Narrow<T>::of(wide(x[place(i, dims, info, 0)]));
}
template <typename T>
void const_set(size_t n, size_t dims, const size_t* info, T value, T* y) {
  for (size_t i = 0; i < n; i++) y[place(i, dims, info, 0)] = value;
}
template <typename T>
void fill(T* y, T value, size_t n) { std::fill(y, y + n, value); }
template <typename T>
void copy2d(const T* x, T* y, uint32_t rows, uint32_t columns, uint32_t x_stride, uint32_t y_stride) {
  for (size_t r = 0; r < rows; r++) std::copy_n(x + r * x_stride, columns, y + r * y_stride);
}
// The last dimensions, `each` numbers of them, summed.
template <typename T>
void sum(size_t n, size_t each, size_t dims, const size_t* info, const T* x, T* y) {
  for (size_t i = 0; i < n / each; i++) {
    double total = 0;
    for (size_t j = 0; j < each; j++) total += wide(x[place(i * each + j, dims, info, 0)]);
    y[i] = Narrow<T>::of(total);
  }
}
template <typename T>
void index_select(size_t n, size_t, const size_t*, const uint32_t* ids, const T* x, T* y, size_t, size_t from,
                  size_t to, size_t right) {
  for (size_t i = 0; i < n; i++) y[i] = x[(i / (to * right) * from + ids[i / right % to]) * right + i % right];
}

double square(double x) { return x * x; }
double root(double x) { return sqrt(x); }
double negative(double x) { return -x; }
double exponential(double x) { return exp(x); }
double logarithm(double x) { return log(x); }
double plus(double a, double b) { return a + b; }
double minus(double a, double b) { return a - b; }
double times(double a, double b) { return a * b; }
double over(double a, double b) { return a / b; }

using device::Registered;
#define NAMED(NAME, ...) {NAME, __VA_ARGS__, true}
#define OF_FLOATS(SUFFIX, T)                                                                                           \
  NAMED("usqr_" SUFFIX, unary<T, square>), NAMED("usqrt_" SUFFIX, unary<T, root>),                                     \
      NAMED("uneg_" SUFFIX, unary<T, negative>), NAMED("uexp_" SUFFIX, unary<T, exponential>),                         \
      NAMED("ulog_" SUFFIX, unary<T, logarithm>), NAMED("affine_" SUFFIX, affine<T>),                                  \
      NAMED("badd_" SUFFIX, binary<T, plus>), NAMED("bsub_" SUFFIX, binary<T, minus>),                                 \
      NAMED("bmul_" SUFFIX, binary<T, times>), NAMED("bdiv_" SUFFIX, binary<T, over>),                                 \
      NAMED("fast_sum_" SUFFIX, sum<T>), NAMED("fast_sum_small_" SUFFIX, sum<T>)
#define OF_ALL(SUFFIX, T)                                                                                              \
  NAMED("ucopy_" SUFFIX, copied<T>), NAMED("const_set_" SUFFIX, const_set<T>), NAMED("fill_" SUFFIX, fill<T>),         \
      NAMED("copy2d_" SUFFIX, copy2d<T>), NAMED("is_u32_" SUFFIX, index_select<T>),                                    \
      NAMED("cast_" SUFFIX "_f32", cast<T, float>), NAMED("cast_" SUFFIX "_f64", cast<T, double>),                     \
      NAMED("cast_" SUFFIX "_bf16", cast<T, bf16>), NAMED("cast_" SUFFIX "_u32", cast<T, uint32_t>)

Registered all[] = {OF_FLOATS("f32", float), OF_FLOATS("f64", double), OF_FLOATS("bf16", bf16),
                    OF_ALL("f32", float),    OF_ALL("f64", double),    OF_ALL("bf16", bf16),
                    OF_ALL("u32", uint32_t), OF_ALL("u8", uint8_t),    OF_ALL("i64", int64_t)};
}  // namespace
