// Memory that tells: arrays that end at a page no one may touch, filled with NaNs; shared memory filled with NaNs for
// every block.
#pragma once
#include <csignal>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "types.h"

namespace emu {
constexpr size_t PAGE = 4096;
// As bf16 and as f32 a NaN, as an index out of every range.
constexpr unsigned char POISON = 0xff;

// `bytes` bytes that end (up to their alignment) where an inaccessible page begins; another lies before them.
class Guarded {
 public:
  explicit Guarded(size_t bytes, size_t alignment = 16)
      : bytes_(bytes), pages_((bytes + PAGE - 1) / PAGE), room_((bytes + alignment - 1) / alignment * alignment) {
    region_ = (unsigned char*)mmap(nullptr, (pages_ + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region_ == MAP_FAILED || (pages_ && mprotect(region_ + PAGE, pages_ * PAGE, PROT_READ | PROT_WRITE) != 0)) {
      perror("EMU: memory");
      _exit(3);
    }
    memset(region_ + PAGE, POISON, pages_ * PAGE);
  }
  ~Guarded() { munmap(region_, (pages_ + 2) * PAGE); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  unsigned char* data() const { return region_ + (pages_ + 1) * PAGE - room_; }
  // Nothing was written around the array where no page can tell.
  bool intact() const {
    for (unsigned char* p = region_ + PAGE; p < data(); p++)
      if (*p != POISON) return false;
    for (unsigned char* p = data() + bytes_; p < region_ + (pages_ + 1) * PAGE; p++)
      if (*p != POISON) return false;
    return true;
  }

 private:
  size_t bytes_, pages_, room_;
  unsigned char* region_;
};

// An array in "global memory".
template <typename T>
class Array {
 public:
  explicit Array(size_t n) : n_(n), memory_(n * sizeof(T)) {}
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    if (n_) memcpy(memory_.data(), values.data(), n_ * sizeof(T));
  }
  ~Array() {
    if (!memory_.intact()) {
      fprintf(stderr, "EMU: written outside an array of %zu elements\n", n_);
      _exit(3);
    }
  }
  T* data() const { return (T*)memory_.data(); }
  size_t size() const { return n_; }
  T& operator[](size_t i) const { return data()[i]; }
  std::vector<T> values() const { return std::vector<T>(data(), data() + n_); }

 private:
  size_t n_;
  Guarded memory_;
};
}  // namespace emu
