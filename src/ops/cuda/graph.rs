//! CUDA graphs: launches kept to be launched again, all at once.
#![allow(unsafe_code)]

use std::fmt;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{self, result, sys};
use candle_core::{DType, Device, Tensor};

use super::memory::{address, uninit};
use crate::error::{Error, Result};

/// What one piece of work launches, with every address in it.
pub(crate) struct Graph(driver::CudaGraph);

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}

impl Graph {
    /// What `work` launches on `device`, of which nothing runs yet. Memory that `work` makes and drops is the graph's;
    /// all else that it reads or writes must live as long as the graph.
    ///
    /// # Errors
    /// `work` fails, or does what no graph holds: waits for the device, copies from or to the host.
    pub fn capture(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let device = device.as_cuda_device()?;
        let stream = device.cuda_stream();
        // The driver would keep a copy from the host as the host's address. candle refuses one while it has this.
        let _guard = device.enable_cuda_graph_htod_cache();
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let done = work();
        // An error of what was freed meanwhile, as after a call that broke the capture: cudarc would answer with it
        // instead of ending the capture, and the stream would stay in it.
        let freed = stream.context().check_err();
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        done?;
        freed.w()?;
        graph.w()?.map(Self).ok_or_else(|| Error::run("a capture of nothing"))
    }

    /// Puts all of it into the stream.
    pub fn launch(&self) -> Result<()> {
        Ok(self.0.launch().w()?)
    }
}

/// Words on the device at an address that stays, for what a graph reads.
#[derive(Debug)]
pub(crate) struct Places(Tensor);

impl Places {
    /// `words` of them, whatever the memory holds.
    pub fn new(device: &Device, words: usize) -> Result<Self> {
        Ok(Self(uninit(device.as_cuda_device()?, words, DType::U32)?))
    }

    /// Some of them, `(words)` u32.
    pub fn part(&self, first: usize, words: usize) -> Result<Tensor> {
        Ok(self.0.narrow(0, first, words)?)
    }

    /// Writes all of them, once what was launched before has read them.
    pub fn write(&self, words: &[u32]) -> Result<()> {
        if words.len() != self.0.elem_count() {
            return Err(Error::run(format!("{} words for {} places", words.len(), self.0.elem_count())));
        }
        let stream = self.0.device().as_cuda_device()?.cuda_stream();
        stream.context().bind_to_thread().w()?;
        // SAFETY: the tensor has as many words; the driver has read the host's when the call returns, as they are not
        // pinned.
        unsafe { result::memcpy_htod_async(address(&self.0)?, words, stream.cu_stream()) }.w()?;
        Ok(())
    }
}
