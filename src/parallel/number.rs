//! What a message between ranks is made of.

/// A type that MPI has too.
#[cfg(feature = "mpi")]
pub(super) trait Number: Copy + Send + Default + 'static + ::mpi::traits::Equivalence {}
/// A type that MPI has too.
#[cfg(not(feature = "mpi"))]
pub(super) trait Number: Copy + Send + Default + 'static {}

impl Number for f32 {}
impl Number for u8 {}
impl Number for u64 {}
