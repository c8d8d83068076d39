//! Rows with a gradient: backward may leave the others out where nothing is summed over rows.
//!
//! Both heads read a sequence from t_n to its end, so in the last layer most rows of a batch have a gradient of 0, and
//! what is made of them row by row (the frozen MLP's products) is 0 again.

use candle_core::Tensor;

use crate::error::Result;

/// Which rows of a gradient `(tokens, hidden)` are not 0.
#[derive(Debug)]
pub(super) struct LiveRows {
    /// Their indices, u32.
    rows: Tensor,
    total: usize,
}

impl LiveRows {
    /// The rows of `dy (tokens, hidden)` that are not 0 throughout, where the first row is 0 and at most half are not.
    /// `None` otherwise, where all are 0, and on a device whose memory would have to be waited for.
    pub fn of(dy: &Tensor) -> Result<Option<Self>> {
        if !dy.device().is_cpu() {
            return Ok(None);
        }
        let largest = |rows: &Tensor| -> Result<Vec<f32>> {
            Ok(rows.abs()?.max(1)?.to_dtype(candle_core::DType::F32)?.to_vec1()?)
        };
        // Of every layer but the last the first row has a gradient: nothing more is looked at.
        if dy.dim(0)? == 0 || largest(&dy.narrow(0, 0, 1)?)?[0] != 0.0 {
            return Ok(None);
        }
        let largest = largest(dy)?;
        // A NaN is no 0.
        let live: Vec<u32> = (0..).zip(&largest).filter(|(_, largest)| **largest != 0.0).map(|(row, _)| row).collect();
        if live.is_empty() || 2 * live.len() > largest.len() {
            return Ok(None);
        }
        let rows = Tensor::new(live, dy.device())?;
        Ok(Some(Self { rows, total: largest.len() }))
    }

    /// Those rows of `x (tokens, …)`.
    pub fn gather(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.index_select(&self.rows, 0)?)
    }

    /// `(live rows, hidden)` → `(tokens, hidden)`, 0 in every other row.
    pub fn scatter(&self, rows: &Tensor) -> Result<Tensor> {
        Ok(Tensor::zeros((self.total, rows.dim(1)?), rows.dtype(), rows.device())?.index_add(&self.rows, rows, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_rows_are_gathered_and_put_back() {
        let cpu = candle_core::Device::Cpu;
        let dy = Tensor::new(&[[0f32, 0.0], [0.0, -0.0], [0.0, 3.0], [0.0, 0.0], [f32::NAN, 0.0]], &cpu).unwrap();
        let live = LiveRows::of(&dy).unwrap().unwrap();
        assert_eq!(live.rows.to_vec1::<u32>().unwrap(), [2, 4]);
        let x = Tensor::arange(0f32, 10.0, &cpu).unwrap().reshape((5, 2)).unwrap();
        let rows = live.gather(&x).unwrap();
        assert_eq!(rows.to_vec2::<f32>().unwrap(), [[4.0, 5.0], [8.0, 9.0]]);
        let back = live.scatter(&rows).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(back, [[0.0, 0.0], [0.0, 0.0], [4.0, 5.0], [0.0, 0.0], [8.0, 9.0]]);
        assert!(LiveRows::of(&x).unwrap().is_none(), "most rows have a gradient");
        assert!(LiveRows::of(&x.zeros_like().unwrap()).unwrap().is_none());
    }
}
