//! The functions of CUDA's libraries that candle, cudarc and the ops call: all that the program is linked to. build.rs
//! reads this file too. The linker names a function that is missing here.

/// Each library's name, as in `-lNAME`, and its functions.
pub const LIBRARIES: [(&str, &[&str]); 4] =
    [("cuda", CUDA), ("cublas", CUBLAS), ("cublasLt", CUBLAS_LT), ("curand", CURAND)];

/// The driver's.
pub const CUDA: &[&str] = &[
    "cuCtxDestroy_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetDefaultMemPool",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuFuncSetAttribute",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemAlloc_v2",
    "cuMemFreeAsync",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemPoolGetAttribute",
    "cuMemPoolSetAttribute",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyPeerAsync",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoad",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamIsCapturing",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// cuBLAS's: ours is `cublasGemmEx`, the other two candle's `matmul`.
pub const CUBLAS: &[&str] = &[
    "cublasCreate_v2",
    "cublasDestroy_v2",
    "cublasDgemmStridedBatched",
    "cublasGemmEx",
    "cublasGemmStridedBatchedEx",
    "cublasSetStream_v2",
];

/// cuBLASLt's, for products in fp8.
pub const CUBLAS_LT: &[&str] = &[
    "cublasLtCreate",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];

/// cuRAND's: candle has a generator in each device, and its random tensors of it, which clsgen does not ask for.
pub const CURAND: &[&str] = &[
    "curandCreateGenerator",
    "curandDestroyGenerator",
    "curandGenerateNormal",
    "curandGenerateNormalDouble",
    "curandGenerateUniform",
    "curandGenerateUniformDouble",
    "curandSetPseudoRandomGeneratorSeed",
    "curandSetStream",
];
