//! Slices of CPU tensors: the one place where ops look inside candle's storage.
//!
//! Reading: `let x = x.contiguous()?; let view = View::of(&x)?; let x = view.f32()?;`. Writing in place goes through
//! candle's `InplaceOp1`, the only door to mutable storage it leaves open.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, StorageRef, Tensor};
use half::bf16;

use crate::error::{Error, Result};

/// Read access to a contiguous CPU tensor's elements.
pub(crate) struct View<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

/// A weight's elements, in the precision it is stored in.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Weight<'a> {
    /// The elements from `start` on.
    pub fn from(self, start: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[start..]),
            Self::Bf16(values) => Self::Bf16(&values[start..]),
        }
    }
}

impl<'a> View<'a> {
    /// Locks the tensor's storage for reading; it must be contiguous.
    pub fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| Error::run(format!("tensor of shape {:?} is not contiguous", tensor.dims())))?;
        Ok(Self { storage, range: start..end })
    }

    fn cpu(&self) -> Result<&CpuStorage> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(storage),
            _ => Err(Error::run("this operation has no implementation for the tensor's device")),
        }
    }

    /// Elements of an f32 tensor.
    pub fn f32(&self) -> Result<&[f32]> {
        Ok(&self.cpu()?.as_slice::<f32>()?[self.range.clone()])
    }

    /// Bytes of a u8 tensor.
    pub fn u8(&self) -> Result<&[u8]> {
        Ok(&self.cpu()?.as_slice::<u8>()?[self.range.clone()])
    }

    /// Elements of an f32 or bf16 tensor.
    pub fn weight(&self) -> Result<Weight<'_>> {
        match self.cpu()? {
            CpuStorage::F32(values) => Ok(Weight::F32(&values[self.range.clone()])),
            CpuStorage::BF16(values) => Ok(Weight::Bf16(&values[self.range.clone()])),
            _ => Err(Error::run("a weight must be f32 or bf16")),
        }
    }
}

/// A CPU tensor that takes over `values`.
pub(crate) fn tensor<S: Into<candle_core::Shape>>(values: Vec<f32>, shape: S) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// Allocates `N` vectors of `lengths` and lets `write` initialise them, without zeroing them first: that pass over
/// memory would cost as much as many an op.
///
/// # Safety
/// `write` must initialise every element of each slice that it is given.
pub(crate) unsafe fn init_with<T, const N: usize>(
    lengths: [usize; N],
    write: impl FnOnce([&mut [MaybeUninit<T>]; N]),
) -> [Vec<T>; N] {
    let mut vectors = lengths.map(Vec::with_capacity);
    let mut each = lengths.into_iter();
    write(vectors.each_mut().map(|vector| &mut vector.spare_capacity_mut()[..each.next().unwrap_or(0)]));
    for (vector, length) in vectors.iter_mut().zip(lengths) {
        // SAFETY: the capacity is at least `length`, and the caller promises that every element was initialised.
        unsafe { vector.set_len(length) };
    }
    vectors
}

/// As [`Weight`], to write.
pub(crate) enum WeightMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl WeightMut<'_> {
    /// The elements from `start` on.
    pub fn from(&mut self, start: usize) -> WeightMut<'_> {
        match self {
            Self::F32(values) => WeightMut::F32(&mut values[start..]),
            Self::Bf16(values) => WeightMut::Bf16(&mut values[start..]),
        }
    }
}

struct InPlace<F>(RefCell<Option<F>>);

impl<F: FnOnce(WeightMut<'_>) -> Result<()>> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "in-place update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (start, end) =
            layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "in-place update" })?;
        let values = match storage {
            CpuStorage::F32(values) => WeightMut::F32(&mut values[start..end]),
            CpuStorage::BF16(values) => WeightMut::Bf16(&mut values[start..end]),
            _ => return Err(candle_core::Error::Msg("an in-place update needs f32 or bf16".into())),
        };
        match self.0.borrow_mut().take() {
            Some(update) => update(values).map_err(|error| candle_core::Error::Msg(error.to_string())),
            None => Ok(()),
        }
    }
}

/// Calls `update` with the tensor's own elements; every handle that shares the storage sees the change.
pub(crate) fn update(tensor: &Tensor, update: impl FnOnce(WeightMut<'_>) -> Result<()>) -> Result<()> {
    Ok(tensor.inplace_op1(&InPlace(RefCell::new(Some(update))))?)
}

/// As [`update`], of an f32 tensor.
pub(crate) fn update_f32(tensor: &Tensor, change: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    update(tensor, |values| match values {
        WeightMut::F32(values) => change(values),
        WeightMut::Bf16(_) => Err(Error::run("an in-place update needs f32")),
    })
}
