// cuBLAS, cuBLASLt and cuRAND on a machine without a card: the products that clsgen asks for, in plain loops and f64.
#include <memory>

#include "device.h"

namespace {
enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Kind { F32 = 0, F64 = 1, BF16 = 14, E4M3 = 28 };
char handle;

double get(const void* p, int kind, size_t i) {
  switch (kind) {
    case F32: return ((const float*)p)[i];
    case F64: return ((const double*)p)[i];
    case BF16: return to_float(((const bf16*)p)[i]);
    default: return (((const uint8_t*)p)[i] & 128 ? -1 : 1) * (double)e4m3_value(((const uint8_t*)p)[i] & 127);
  }
}
void put(void* p, int kind, size_t i, double value) {
  switch (kind) {
    case F32: ((float*)p)[i] = value; break;
    case F64: ((double*)p)[i] = value; break;
    default: ((bf16*)p)[i] = to_bf16(value); break;
  }
}
size_t bytes_of(int kind) { return kind == F64 ? 8 : kind == F32 ? 4 : kind == BF16 ? 2 : 1; }

// A matrix by columns, each `stride` elements behind the one before; read as its transpose where `transposed`.
struct Matrix {
  const void* p;
  int kind;
  size_t stride;
  bool transposed;
  // Its rows, each `inner` numbers together.
  std::vector<double> rows(int count, int inner) const {
    std::vector<double> all((size_t)count * inner);
    for (int i = 0; i < count; i++)
      for (int k = 0; k < inner; k++)
        all[(size_t)i * inner + k] = get(p, kind, transposed ? i * stride + k : k * stride + i);
    return all;
  }
};

// c (m, n) = alpha a (m, k) · b (k, n) + beta c, by columns; scales of a's rows and b's columns where there are.
void product(int m, int n, int k, double alpha, Matrix a, Matrix b, double beta, void* c, int c_kind, size_t c_stride,
             const float* a_scales = nullptr, const float* b_scales = nullptr) {
  auto left = a.rows(m, k), right = Matrix{b.p, b.kind, b.stride, !b.transposed}.rows(n, k);
  for (int j = 0; j < n; j++)
    for (int i = 0; i < m; i++) {
      double sum = 0;
      const double *x = &left[(size_t)i * k], *y = &right[(size_t)j * k];
      for (int l = 0; l < k; l++) sum += x[l] * y[l];
      if (a_scales) sum *= a_scales[i];
      if (b_scales) sum *= b_scales[j];
      size_t at = j * c_stride + i;
      put(c, c_kind, at, alpha * sum + (beta == 0 ? 0 : beta * get(c, c_kind, at)));
    }
}

struct Layout {
  int kind;
  uint64_t rows, columns;
  int64_t stride;
};
enum Attribute { TRANSA = 3, TRANSB = 4, A_SCALES = 17, B_SCALES = 18, FAST = 25, A_MODE = 31, B_MODE = 32 };
constexpr int64_t OUTER_VECTOR = 3;
typedef std::map<int, int64_t> Description;

// As the documentation has it of e4m3: the first operand transposed, the second not, all sides multiples of 16.
bool supported(const Description& d, const Layout& a, const Layout& b, const Layout& c) {
  auto is = [&](int attribute, int64_t value) { return d.count(attribute) && d.at(attribute) == value; };
  bool sides = a.rows % 16 == 0 && a.columns % 16 == 0 && b.columns % 16 == 0;
  bool fit = a.rows == b.rows && c.rows == a.columns && c.columns == b.columns;
  bool apart = a.stride >= (int64_t)a.rows && b.stride >= (int64_t)b.rows && c.stride >= (int64_t)c.rows;
  bool kinds = a.kind == E4M3 && b.kind == E4M3 && (c.kind == BF16 || c.kind == F32);
  return is(TRANSA, 1) && is(TRANSB, 0) && is(A_MODE, OUTER_VECTOR) && is(B_MODE, OUTER_VECTOR) && d.count(A_SCALES) &&
         d.count(B_SCALES) && kinds && sides && fit && apart;
}
}  // namespace

API int cublasCreate_v2(void** made) { return *made = &handle, SUCCESS; }
API int cublasDestroy_v2(void*) { return SUCCESS; }
API int cublasSetStream_v2(void*, void*) { return SUCCESS; }

API int cublasGemmStridedBatchedEx(void*, int a_op, int b_op, int m, int n, int k, const void* alpha, const void* a,
                                   int a_kind, int lda, long long a_step, const void* b, int b_kind, int ldb,
                                   long long b_step, const void* beta, void* c, int c_kind, int ldc, long long c_step,
                                   int batch, int, int) {
  double by = *(const float*)alpha, of_c = *(const float*)beta;
  if (getenv("EMULATED_TRACE")) fprintf(stderr, "EMU: product %d x %d x %d, %d\n", m, n, k, batch);
  if (lda < (a_op ? k : m) || ldb < (b_op ? n : k) || ldc < m || a_kind != b_kind) return INVALID_VALUE;
  device::submit([=] {
    for (int i = 0; i < batch; i++)
      product(m, n, k, by, {(const char*)a + i * a_step * bytes_of(a_kind), a_kind, (size_t)lda, a_op != 0},
              {(const char*)b + i * b_step * bytes_of(b_kind), b_kind, (size_t)ldb, b_op != 0}, of_c,
              (char*)c + i * c_step * bytes_of(c_kind), c_kind, ldc);
  });
  return SUCCESS;
}
API int cublasGemmEx(void* h, int a_op, int b_op, int m, int n, int k, const void* alpha, const void* a, int a_kind,
                     int lda, const void* b, int b_kind, int ldb, const void* beta, void* c, int c_kind, int ldc,
                     int compute, int algorithm) {
  return cublasGemmStridedBatchedEx(h, a_op, b_op, m, n, k, alpha, a, a_kind, lda, 0, b, b_kind, ldb, 0, beta, c,
                                    c_kind, ldc, 0, 1, compute, algorithm);
}
API int cublasDgemmStridedBatched(void* h, int a_op, int b_op, int m, int n, int k, const double* alpha,
                                  const double* a, int lda, long long a_step, const double* b, int ldb,
                                  long long b_step, const double* beta, double* c, int ldc, long long c_step,
                                  int batch) {
  float by = *alpha, of_c = *beta;
  return cublasGemmStridedBatchedEx(h, a_op, b_op, m, n, k, &by, a, F64, lda, a_step, b, F64, ldb, b_step, &of_c, c,
                                    F64, ldc, c_step, batch, 0, 0);
}

API int cublasLtCreate(void** made) { return *made = &handle, SUCCESS; }
API int cublasLtMatmulDescCreate(void** made, int, int) { return *made = new Description, SUCCESS; }
API int cublasLtMatmulDescDestroy(void* d) { return delete (Description*)d, SUCCESS; }
API int cublasLtMatmulDescSetAttribute(void* d, int attribute, const void* value, size_t bytes) {
  size_t right = attribute == A_SCALES || attribute == B_SCALES ? 8 : attribute == FAST ? 1 : 4;
  if (bytes != right) return INVALID_VALUE;
  int64_t number = 0;
  memcpy(&number, value, bytes);
  return (*(Description*)d)[attribute] = number, SUCCESS;
}
API int cublasLtMatrixLayoutCreate(void** made, int kind, uint64_t rows, uint64_t columns, int64_t stride) {
  return *made = new Layout{kind, rows, columns, stride}, SUCCESS;
}
API int cublasLtMatrixLayoutDestroy(void* layout) { return delete (Layout*)layout, SUCCESS; }
API int cublasLtMatmulPreferenceCreate(void** made) { return *made = &handle, SUCCESS; }
API int cublasLtMatmulPreferenceDestroy(void*) { return SUCCESS; }
API int cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, size_t bytes) {
  return bytes == 8 ? SUCCESS : INVALID_VALUE;
}
API int cublasLtMatmulAlgoGetHeuristic(void*, void* d, void* a, void* b, void* c, void*, void*, int, void* found,
                                       int* count) {
  *count = supported(*(Description*)d, *(Layout*)a, *(Layout*)b, *(Layout*)c);
  // The algorithm (64 bytes), the workspace (8), the status.
  memset(found, 0, 76);
  return *count ? SUCCESS : NOT_SUPPORTED;
}
API int cublasLtMatmul(void*, void* description, const void* alpha, const void* a, void* of_a, const void* b,
                       void* of_b, const void* beta, const void*, void*, void* y, void* of_y, const void*, void*,
                       size_t, void*) {
  const Description& d = *(Description*)description;
  Layout left = *(Layout*)of_a, right = *(Layout*)of_b, out = *(Layout*)of_y;
  if (!supported(d, left, right, out)) return NOT_SUPPORTED;
  double by = *(const float*)alpha, of_c = *(const float*)beta;
  if (getenv("EMULATED_TRACE")) fprintf(stderr, "EMU: product of e4m3\n");
  auto a_scales = (const float*)d.at(A_SCALES), b_scales = (const float*)d.at(B_SCALES);
  device::submit([=] {
    product(out.rows, out.columns, left.rows, by, {a, E4M3, (size_t)left.stride, true},
            {b, E4M3, (size_t)right.stride, false}, of_c, y, out.kind, out.stride, a_scales, b_scales);
  });
  return SUCCESS;
}

// candle makes a generator with each device; clsgen draws nothing of it.
API int curandCreateGenerator(void** made, int) { return *made = &handle, SUCCESS; }
API int curandDestroyGenerator(void*) { return SUCCESS; }
API int curandSetStream(void*, void*) { return SUCCESS; }
API int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return SUCCESS; }
API int curandGenerateNormal(void*, float*, size_t, float, float) { return NOT_SUPPORTED; }
API int curandGenerateNormalDouble(void*, double*, size_t, double, double) { return NOT_SUPPORTED; }
API int curandGenerateUniform(void*, float*, size_t) { return NOT_SUPPORTED; }
API int curandGenerateUniformDouble(void*, double*, size_t) { return NOT_SUPPORTED; }
