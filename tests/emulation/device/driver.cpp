// CUDA's driver on a machine without a card: "device memory" is guarded host memory, a launch runs the kernel's own
// source under the emulation, everything at once and in the order of the calls. EMULATED_CAPABILITY=8.0 is another card
// than 9.0, EMULATED_DEVICES=2 are two of them, EMULATED_TRACE=1 names each launch and product and the bytes in use,
// EMULATED_BREAK=1 breaks each capture of more than a few launches.
// The functions are those of src/ops/cuda/functions.rs, their numbers those of cuda.h.
#include <memory>

#include "device.h"

namespace {
enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  NOT_INITIALIZED = 3,
  NOT_FOUND = 500,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
};
enum DeviceAttribute {
  MULTIPROCESSORS = 16,
  CAPABILITY_MAJOR = 75,
  CAPABILITY_MINOR = 76,
  MOST_SHARED = 97,
  MEMORY_POOLS = 115,
};
enum PoolAttribute { RESERVED_CURRENT = 5, RESERVED_HIGH = 6, USED_CURRENT = 7, USED_HIGH = 8 };
constexpr size_t CARD = 8ull << 30;

std::recursive_mutex lock;
#define ONE_AT_A_TIME std::lock_guard<std::recursive_mutex> guard(lock)

struct Allocation {
  std::unique_ptr<emu::Guarded> memory;
  size_t bytes;
};
std::map<uint64_t, Allocation> allocations;
uint64_t used, used_high;

// The address of `bytes` new bytes, all NaNs.
uint64_t allocate(size_t bytes) {
  auto memory = std::make_unique<emu::Guarded>(bytes);
  uint64_t address = (uint64_t)memory->data();
  allocations[address] = {std::move(memory), bytes};
  used += bytes;
  used_high = std::max(used_high, used);
  return address;
}

Result release(uint64_t address) {
  auto found = allocations.find(address);
  if (found == allocations.end()) return INVALID_VALUE;
  if (!found->second.memory->intact()) {
    fprintf(stderr, "EMU: written around an array of %zu bytes\n", found->second.bytes);
    _exit(3);
  }
  used -= found->second.bytes;
  allocations.erase(found);
  return SUCCESS;
}

// [address, address + bytes) lies in one array.
bool within(uint64_t address, size_t bytes) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return false;
  auto& [start, array] = *std::prev(after);
  return address + bytes <= start + array.bytes;
}

// What a graph holds: its work in order, and the arrays made while it was captured; of these, those that are not freed.
// Once a call has been refused it is broken: the stream's calls fail until the capture is ended, which fails too.
struct Graph {
  std::vector<std::function<void()>> work;
  std::vector<uint64_t> arrays, unfreed;
  bool broken = false;
};
Graph* capturing;

// The answer to what a capture must not do.
Result refused() { return capturing->broken = true, CAPTURE_UNSUPPORTED; }
bool in_broken_capture() { return capturing && capturing->broken; }

// A copy between places that the driver can tell are too small.
Result copy(void* to, const void* from, size_t bytes, bool to_device, bool from_device) {
  if (in_broken_capture()) return CAPTURE_INVALIDATED;
  if (to_device && !within((uint64_t)to, bytes)) return INVALID_VALUE;
  if (from_device && !within((uint64_t)from, bytes)) return INVALID_VALUE;
  device::submit([=] { memmove(to, from, bytes); });
  return SUCCESS;
}

struct Function {
  std::string name;
  device::Kernel* kernel;
  size_t shared = 48 << 10;
};
std::map<std::string, std::unique_ptr<Function>> functions;

// Handles of which there is one.
char context, stream, module, pool;
thread_local void* current_context;

int capability() {
  const char* asked = getenv("EMULATED_CAPABILITY");
  return asked && strlen(asked) == 3 ? (asked[0] - '0') * 10 + asked[2] - '0' : 90;
}
// Bytes of shared memory that a block may ask for.
int most_shared() {
  switch (capability()) {
    case 80: return 163 << 10;
    case 86: case 89: case 120: return 99 << 10;
    default: return 227 << 10;
  }
}
}  // namespace

void device::submit(std::function<void()> work) {
  ONE_AT_A_TIME;
  if (capturing) capturing->work.push_back(std::move(work));
  else work();
}

API int cuInit(unsigned) { return SUCCESS; }
API int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
API int cuDeviceGetCount(int* count) {
  const char* asked = getenv("EMULATED_DEVICES");
  return *count = asked ? atoi(asked) : 1, SUCCESS;
}
API int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, SUCCESS; }
API int cuDeviceGetName(char* name, int length, int) {
  // A card whose peak is tabled: to measure it takes minutes here.
  snprintf(name, length, "%s (emulated)", capability() == 90 ? "NVIDIA H100" : "NVIDIA A100");
  return SUCCESS;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case MULTIPROCESSORS: return *value = 4, SUCCESS;
    case CAPABILITY_MAJOR: return *value = capability() / 10, SUCCESS;
    case CAPABILITY_MINOR: return *value = capability() % 10, SUCCESS;
    case MOST_SHARED: return *value = most_shared(), SUCCESS;
    case MEMORY_POOLS: return *value = 1, SUCCESS;
    default: fprintf(stderr, "EMU: device attribute %d\n", attribute); return INVALID_VALUE;
  }
}
API int cuGetErrorString(int error, const char** text) {
  *text = error == CAPTURE_UNSUPPORTED ? "operation not permitted when stream is capturing"
          : error == CAPTURE_INVALIDATED ? "operation failed due to a previous error during capture"
          : error == NOT_FOUND         ? "named symbol not found"
                                       : "an error of the emulated driver";
  return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(void** made, int) { return *made = &context, SUCCESS; }
API int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API int cuCtxDestroy_v2(void*) { return SUCCESS; }
API int cuCtxGetCurrent(void** current) { return *current = current_context, SUCCESS; }
API int cuCtxSetCurrent(void* to) { return current_context = to, SUCCESS; }

// Nothing may wait for a stream that is being captured.
API int cuCtxSynchronize() { return capturing ? refused() : SUCCESS; }
API int cuStreamSynchronize(void*) { return capturing ? refused() : SUCCESS; }
API int cuStreamCreate(void** made, unsigned) { return *made = &stream, SUCCESS; }
API int cuStreamDestroy_v2(void*) { return SUCCESS; }
API int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
API int cuEventCreate(void** made, unsigned) { return *made = &stream, SUCCESS; }
API int cuEventDestroy_v2(void*) { return SUCCESS; }
API int cuEventRecord(void*, void*) { return SUCCESS; }

API int cuMemGetInfo_v2(size_t* free, size_t* total) {
  ONE_AT_A_TIME;
  return *total = CARD, *free = CARD - used, SUCCESS;
}
API int cuDeviceGetDefaultMemPool(void** made, int) { return *made = &pool, SUCCESS; }
API int cuMemPoolGetAttribute(void*, int attribute, void* value) {
  ONE_AT_A_TIME;
  *(uint64_t*)value = attribute == USED_HIGH || attribute == RESERVED_HIGH ? used_high : used;
  return SUCCESS;
}
API int cuMemPoolSetAttribute(void*, int attribute, void*) {
  ONE_AT_A_TIME;
  if (attribute == USED_HIGH) used_high = used;
  return SUCCESS;
}
API int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  ONE_AT_A_TIME;
  if (capturing) return refused();
  return bytes ? (*address = allocate(bytes), SUCCESS) : INVALID_VALUE;
}
API int cuMemAllocAsync(uint64_t* address, size_t bytes, void*) {
  ONE_AT_A_TIME;
  if (in_broken_capture()) return CAPTURE_INVALIDATED;
  if (!bytes) return INVALID_VALUE;
  *address = allocate(bytes);
  if (capturing) capturing->arrays.push_back(*address), capturing->unfreed.push_back(*address);
  return SUCCESS;
}
API int cuMemFree_v2(uint64_t address) {
  ONE_AT_A_TIME;
  return capturing ? refused() : release(address);
}
// Within a capture the array stays the graph's; from here on it holds NaNs, as if another had its place.
API int cuMemFreeAsync(uint64_t address, void*) {
  ONE_AT_A_TIME;
  if (in_broken_capture()) return CAPTURE_INVALIDATED;
  if (!capturing) return release(address);
  auto found = std::find(capturing->unfreed.begin(), capturing->unfreed.end(), address);
  if (found == capturing->unfreed.end()) return INVALID_VALUE;
  capturing->unfreed.erase(found);
  size_t bytes = allocations.at(address).bytes;
  device::submit([=] { memset((void*)address, emu::POISON, bytes); });
  return SUCCESS;
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
  ONE_AT_A_TIME;
  return copy((void*)to, (void*)from, bytes, true, true);
}
API int cuMemcpyPeerAsync(uint64_t to, void*, uint64_t from, void*, size_t bytes, void*) {
  ONE_AT_A_TIME;
  return copy((void*)to, (void*)from, bytes, true, true);
}
// A graph would copy from and to what the host has freed long since.
API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  ONE_AT_A_TIME;
  return capturing ? refused() : copy(to, (void*)from, bytes, false, true);
}
API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  ONE_AT_A_TIME;
  return capturing ? refused() : copy((void*)to, from, bytes, true, false);
}
API int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void*) {
  ONE_AT_A_TIME;
  if (in_broken_capture()) return CAPTURE_INVALIDATED;
  if (!within(to, bytes)) return INVALID_VALUE;
  device::submit([=] { memset((void*)to, value, bytes); });
  return SUCCESS;
}

// A load may wait for all that runs, which no capture holds.
API int cuModuleLoadData(void** made, const void*) {
  ONE_AT_A_TIME;
  return capturing ? refused() : (*made = &module, SUCCESS);
}
API int cuModuleLoad(void** made, const char*) {
  ONE_AT_A_TIME;
  return capturing ? refused() : (*made = &module, SUCCESS);
}
API int cuModuleUnload(void*) { return SUCCESS; }
API int cuModuleGetFunction(void** made, void*, const char* name) {
  ONE_AT_A_TIME;
  auto found = device::kernels().find(name);
  if (found == device::kernels().end()) {
    fprintf(stderr, "EMU: no kernel is named %s\n", name);
    return NOT_FOUND;
  }
  auto& function = functions[name];
  if (!function) function.reset(new Function{name, &found->second});
  return *made = function.get(), SUCCESS;
}
API int cuFuncSetAttribute(void* function, int attribute, int value) {
  ONE_AT_A_TIME;
  if (attribute != 8 || value > most_shared()) return INVALID_VALUE;  // MAX_DYNAMIC_SHARED_SIZE_BYTES
  return ((Function*)function)->shared = value, SUCCESS;
}
API int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                       unsigned threads_z, unsigned shared, void*, void** parameters, void**) {
  ONE_AT_A_TIME;
  auto& [name, kernel, most_shared] = *(Function*)function;
  if (!x || !y || !z || y > 65535 || z > 65535 || threads_x * threads_y * threads_z > 1024 || shared > most_shared)
    return INVALID_VALUE;
  // The parameters are copied: the caller's end with the call.
  std::vector<uint64_t> values(2 * kernel->sizes.size());
  for (size_t i = 0; i < kernel->sizes.size(); i++) memcpy(&values[2 * i], parameters[i], kernel->sizes[i]);
  if (in_broken_capture()) return CAPTURE_INVALIDATED;
  // As a call would that no capture holds, in the midst of a step.
  if (capturing && capturing->work.size() == 10 && getenv("EMULATED_BREAK")) return refused();
  dim3 grid(x, y, z), block(threads_x, threads_y, threads_z);
  if (getenv("EMULATED_TRACE"))
    fprintf(stderr, "EMU: %s (%u, %u, %u) x %u, %lu bytes\n", name.c_str(), x, y, z, threads_x, (unsigned long)used);
  device::submit([=, kernel = kernel, values = std::move(values)]() mutable {
    std::vector<void*> at;
    for (size_t i = 0; i < kernel->sizes.size(); i++) at.push_back(&values[2 * i]);
    if (kernel->plain) kernel->call(at.data());
    else emu::launch(grid, block, shared, [&] { kernel->call(at.data()); });
  });
  return SUCCESS;
}

API int cuStreamBeginCapture_v2(void*, int) {
  ONE_AT_A_TIME;
  if (capturing) return INVALID_VALUE;
  return capturing = new Graph, SUCCESS;
}
API int cuStreamEndCapture(void*, void** made) {
  ONE_AT_A_TIME;
  if (!capturing) return INVALID_VALUE;
  *made = capturing, capturing = nullptr;
  Graph* graph = (Graph*)*made;
  if (!graph->broken) return SUCCESS;
  for (uint64_t address : graph->arrays) release(address);
  delete graph;
  return *made = nullptr, CAPTURE_INVALIDATED;
}
// A graph and what is launched of it are one here: who destroys the former keeps it for the latter.
API int cuGraphInstantiateWithFlags(void** made, void* graph, unsigned long long) { return *made = graph, SUCCESS; }
API int cuGraphDestroy(void*) { return SUCCESS; }
API int cuGraphExecDestroy(void* graph) {
  ONE_AT_A_TIME;
  for (uint64_t address : ((Graph*)graph)->arrays) release(address);
  return delete (Graph*)graph, SUCCESS;
}
API int cuGraphLaunch(void* graph, void*) {
  ONE_AT_A_TIME;
  if (capturing) return refused();
  auto& [work, arrays, unfreed, broken] = *(Graph*)graph;
  // (A first launch would succeed, the next not.)
  if (!unfreed.empty()) {
    fprintf(stderr, "EMU: a graph with %zu arrays that it does not free\n", unfreed.size());
    return INVALID_VALUE;
  }
  if (getenv("EMULATED_TRACE")) fprintf(stderr, "EMU: a graph of %zu launches\n", work.size());
  for (auto& piece : work) piece();
  return SUCCESS;
}

API int cuStreamIsCapturing(void*, int* status) {
  ONE_AT_A_TIME;
  return *status = capturing ? 1 : 0, SUCCESS;
}
