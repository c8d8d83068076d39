//! The rows of each sequence whose final hidden states are read: in training, those from t_n to the end.
//!
//! The last layer's earlier rows take part as keys and values alone. Their q, `o_proj` and MLP are left out, forward
//! and backward, which changes no bit of the others: a row's numbers are its own, and a gradient of 0 adds nothing.

use candle_core::Tensor;

use crate::{
    error::{Error, Result},
    ops::Offsets,
};

/// The last rows of each sequence of a batch, from some position on.
#[derive(Debug)]
pub(super) struct ReadRows {
    /// Where each sequence's rows lie among those read.
    pub offsets: Offsets,
    /// Position within its sequence of each row read.
    pub positions: Vec<u32>,
    /// Position of each sequence's first row read.
    pub first: Vec<usize>,
    /// First row read of each sequence, in the batch.
    starts: Vec<usize>,
    /// Rows of the batch.
    total: usize,
}

impl ReadRows {
    /// Of each sequence the rows from its position in `first` on, one at least.
    pub fn new(offsets: &Offsets, first: &[usize]) -> Result<Self> {
        if first.len() != offsets.count() || offsets.ranges().zip(first).any(|(range, &first)| first >= range.len()) {
            return Err(Error::run(format!("rows to read from {first:?} on, in {} sequences", offsets.count())));
        }
        let lengths: Vec<usize> = offsets.ranges().zip(first).map(|(range, first)| range.len() - first).collect();
        let positions = offsets.ranges().zip(first).flat_map(|(range, &first)| first as u32..range.len() as u32);
        Ok(Self {
            offsets: Offsets::from_lengths(&lengths),
            positions: positions.collect(),
            first: first.to_vec(),
            starts: offsets.ranges().zip(first).map(|(range, first)| range.start + first).collect(),
            total: offsets.total(),
        })
    }

    /// Those rows of `x (tokens, …)`: `(rows read, …)`.
    pub fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let rows = self.offsets.ranges().zip(&self.starts).map(|(range, &start)| x.narrow(0, start, range.len()));
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    /// `(rows read, …)` → `(tokens, …)`, 0 in every other row.
    pub fn scatter(&self, rows: &Tensor) -> Result<Tensor> {
        let mut shape = rows.dims().to_vec();
        shape[0] = self.total;
        let x = Tensor::zeros(shape, rows.dtype(), rows.device())?;
        for (range, &start) in self.offsets.ranges().zip(&self.starts) {
            x.slice_set(&rows.narrow(0, range.start, range.len())?.contiguous()?, 0, start)?;
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_and_put_back_where_they_were() {
        let x = Tensor::arange(0f32, 14.0, &candle_core::Device::Cpu).unwrap().reshape((7, 2)).unwrap();
        let rows = ReadRows::new(&Offsets::from_lengths(&[4, 3]), &[2, 2]).unwrap();
        assert_eq!(rows.positions, [2, 3, 2]);
        let gathered = rows.gather(&x).unwrap();
        assert_eq!(gathered.to_vec2::<f32>().unwrap(), [[4.0, 5.0], [6.0, 7.0], [12.0, 13.0]]);
        let mut expected = vec![vec![0.0; 2]; 7];
        expected[2..4].clone_from_slice(&[vec![4.0, 5.0], vec![6.0, 7.0]]);
        expected[6] = vec![12.0, 13.0];
        assert_eq!(rows.scatter(&gathered).unwrap().to_vec2::<f32>().unwrap(), expected);
        assert!(ReadRows::new(&Offsets::from_lengths(&[4, 3]), &[2, 3]).is_err());
    }
}
