// Arrays of either type as numbers, and how far a kernel of one rounding may be from f64.
#pragma once
#include "check.h"

#include "../../src/ops/cuda/elements.cuh"

// Normal numbers times `size`.
struct Normals {
  double size = 1;
};

// `n` numbers of a T in "global memory", `offset` elements beyond a place that is aligned.
template <typename T>
class Row {
 public:
  // To be written.
  explicit Row(size_t n, size_t offset = 0) : n_(n), offset_(offset), memory_(n + offset) {}
  Row(size_t n, Normals normals, size_t offset = 0) : Row(n, offset) {
    for (size_t i = 0; i < n; i++) put(data() + i, (float)(normal() * normals.size));
  }
  T* data() const { return memory_.data() + offset_; }
  double wide(size_t i) const { return number(data()[i]); }
  std::vector<double> all() const {
    std::vector<double> values(n_);
    for (size_t i = 0; i < n_; i++) values[i] = wide(i);
    return values;
  }
  // x as a T holds it.
  static double held(double x) { return rounded_as((const T*)nullptr, (float)x); }

 private:
  size_t n_, offset_;
  emu::Array<T> memory_;
};

// At most twice the error of the exact result rounded to T, which is the least a plain computation in T has; and room
// for a few operations' rounding in f32, of numbers as large as the greatest result or `terms` (where large terms
// cancel).
template <typename T>
inline bool close(const std::string& test, const std::vector<double>& ours, const std::vector<double>& exact,
                  double terms = 0) {
  std::vector<double> plain(exact.size());
  double size = terms;
  for (size_t i = 0; i < exact.size(); i++) plain[i] = Row<T>::held(exact[i]), size = std::max(size, fabs(exact[i]));
  Error e = error(ours, exact), bound = error(plain, exact);
  double room = size * 1e-6, worst = 2 * bound.worst + room, mean = 2 * bound.mean + room;
  return check(test, e.worst <= worst && e.mean <= mean, "greatest error %.1e (%.2f of bound), mean %.1e (%.2f)",
               e.worst, e.worst / worst, e.mean, e.mean / mean);
}
