//! A batch's rows of logits, chosen from where they are: the host sees ids, and logits only where something asks for
//! them.

use std::borrow::Cow;

use candle_core::{DType, Tensor};

use super::{Draw, choose};
use crate::error::{Error, Result};

/// Rows of logits, each with how its token is drawn.
pub struct Rows {
    draws: Vec<Draw>,
    logits: Logits,
}

enum Logits {
    /// `(n, vocab)` f32, row by row.
    Host { values: Vec<f32>, vocab: usize },
    /// What the device chose, but for the rows it leaves to the host.
    #[cfg(feature = "cuda")]
    Device { logits: Tensor, chosen: Vec<Option<u32>> },
}

impl Rows {
    /// `logits (n, vocab)` and a draw for each row. On a CUDA device every row's token is chosen here, and its id comes
    /// to the host.
    pub fn new(logits: Tensor, draws: Vec<Draw>) -> Result<Self> {
        let (n, vocab) = logits.dims2()?;
        if n != draws.len() {
            return Err(Error::run(format!("sample: {} draws for {n} rows", draws.len())));
        }
        #[cfg(feature = "cuda")]
        if logits.device().is_cuda() {
            let chosen = super::cuda::choose(&logits, &draws)?;
            return Ok(Self { draws, logits: Logits::Device { logits, chosen } });
        }
        let values = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { draws, logits: Logits::Host { values, vocab } })
    }

    /// Every row, first to last.
    pub fn all(&self) -> Vec<RowLogits<'_>> {
        let source = |i: usize| match &self.logits {
            Logits::Host { values, vocab } => Source::Host(&values[i * vocab..(i + 1) * vocab]),
            #[cfg(feature = "cuda")]
            Logits::Device { logits, chosen } => Source::Device { logits, row: i, chosen: chosen[i] },
        };
        self.draws.iter().enumerate().map(|(i, &draw)| RowLogits { draw, source: source(i) }).collect()
    }
}

/// One row of logits and how its token is drawn.
#[derive(Clone, Copy)]
pub struct RowLogits<'a> {
    draw: Draw,
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Host(&'a [f32]),
    #[cfg(feature = "cuda")]
    Device {
        logits: &'a Tensor,
        row: usize,
        chosen: Option<u32>,
    },
}

impl<'a> RowLogits<'a> {
    /// A row on the host.
    pub fn new(logits: &'a [f32], draw: Draw) -> Self {
        Self { draw, source: Source::Host(logits) }
    }

    /// The next token. An error when the largest logit is no finite number.
    pub fn choose(&self) -> Result<u32> {
        match self.source {
            #[cfg(feature = "cuda")]
            Source::Device { chosen: Some(id), .. } => Ok(id),
            _ => choose(&self.logits()?, None, &self.draw).ok_or_else(broken),
        }
    }

    /// The next token among these alone.
    pub fn choose_among(&self, allowed: &[u32]) -> Result<u32> {
        choose(&self.logits()?, Some(allowed), &self.draw).ok_or_else(broken)
    }

    /// The next token that is none of these.
    pub fn choose_without(&self, refused: &[u32]) -> Result<u32> {
        if refused.is_empty() {
            return self.choose();
        }
        let mut logits = self.logits()?.into_owned();
        for &id in refused {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        choose(&logits, None, &self.draw).ok_or_else(broken)
    }

    /// The row's logits, from the device if need be.
    fn logits(&self) -> Result<Cow<'a, [f32]>> {
        match self.source {
            Source::Host(logits) => Ok(Cow::Borrowed(logits)),
            #[cfg(feature = "cuda")]
            Source::Device { logits, row, .. } => Ok(Cow::Owned(logits.get(row)?.to_dtype(DType::F32)?.to_vec1()?)),
        }
    }
}

fn broken() -> Error {
    Error::model("the model's output is not a number (NaN or infinite logits)")
        .hint("the weights may be damaged, or training diverged: try an earlier checkpoint")
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::{super::Sampling, *};

    #[test]
    fn rows_choose_with_their_own_draws() {
        let draw = |temperature| Draw { sampling: Sampling { temperature, top_p: 0.9, seed: 1 }, step: 3, position: 4 };
        let values = [[0.0f32, 3.0, 2.0], [1.0, 0.5, 0.0], [f32::NAN; 3]];
        let logits = Tensor::new(&values, &Device::Cpu).unwrap();
        assert!(Rows::new(logits.clone(), vec![draw(0.0)]).is_err());
        let rows = Rows::new(logits, vec![draw(0.0), draw(1.5), draw(0.0)]).unwrap();
        let rows = rows.all();
        assert_eq!(rows[0].choose().unwrap(), 1);
        assert_eq!((rows[0].choose_without(&[1]).unwrap(), rows[0].choose_among(&[2, 0]).unwrap()), (2, 2));
        assert_eq!(rows[1].choose().unwrap(), choose(&values[1], None, &draw(1.5)).unwrap());
        assert_eq!(rows[2].choose().unwrap_err().exit_code(), 4);
        assert!(rows[0].choose_without(&[0, 1, 2]).is_err() && rows[0].choose_among(&[]).is_err());
    }
}
