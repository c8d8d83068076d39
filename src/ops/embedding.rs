//! Rows of an embedding table by id, and the table's gradient.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Tensor;

use super::Indices;
use super::cpu::slice::{View, Weight, tensor};
use crate::error::{Error, Result};

/// `weight (vocab, hidden)` f32 or bf16, `ids (tokens)` → `(tokens, hidden)`, f32 (on CUDA in the table's type).
pub fn forward<'a>(weight: &Tensor, ids: impl Into<Indices<'a>>) -> Result<Tensor> {
    let (vocab, hidden) = weight.dims2()?;
    let ids = ids.into();
    check(vocab, ids.values())?;
    #[cfg(feature = "cuda")]
    if weight.device().is_cuda() {
        return cuda::forward(weight, ids);
    }
    let weight = weight.contiguous()?;
    let weight = View::of(&weight)?;
    let weight = weight.weight()?;
    let ids = ids.values();
    let mut rows = Vec::with_capacity(ids.len() * hidden);
    for &id in ids {
        let range = id as usize * hidden..(id as usize + 1) * hidden;
        match weight {
            Weight::F32(table) => rows.extend_from_slice(&table[range]),
            Weight::Bf16(table) => rows.extend(table[range].iter().map(|x| x.to_f32())),
        }
    }
    tensor(rows, (ids.len(), hidden))
}

/// `dweight (vocab, hidden)`: each id's rows of `dy (tokens, hidden)` summed, first row first.
pub fn backward(vocab: usize, ids: &[u32], dy: &Tensor) -> Result<Tensor> {
    let (tokens, hidden) = dy.dims2()?;
    check(vocab, ids)?;
    if tokens != ids.len() {
        return Err(Error::run(format!("embedding::backward: {} ids for {tokens} rows", ids.len())));
    }
    #[cfg(feature = "cuda")]
    if dy.device().is_cuda() {
        return cuda::backward(vocab, ids, dy);
    }
    let dy = dy.contiguous()?;
    let dy = View::of(&dy)?;
    let mut dweight = vec![0.0f32; vocab * hidden];
    for (&id, dy) in ids.iter().zip(dy.f32()?.chunks(hidden.max(1))) {
        dweight[id as usize * hidden..(id as usize + 1) * hidden].iter_mut().zip(dy).for_each(|(dw, dy)| *dw += dy);
    }
    tensor(dweight, (vocab, hidden))
}

/// Fails on an id that is not in a table of `vocab` rows.
pub(crate) fn check(vocab: usize, ids: &[u32]) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(Error::run(format!("embedding: id {id} for a table of {vocab} rows"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ops::tests::{random_tensor, values};

    #[test]
    fn rows_are_looked_up_and_their_gradients_added() {
        let table = random_tensor(1, &[5, 3]);
        let ids = [4, 0, 4];
        let rows = forward(&table, &ids).unwrap();
        assert_eq!(values(&rows), values(&table.index_select(&Tensor::new(&ids, table.device()).unwrap(), 0).unwrap()));
        let half = table.to_dtype(DType::BF16).unwrap();
        assert_eq!(values(&forward(&half, &ids).unwrap())[..3], values(&half.to_dtype(DType::F32).unwrap())[12..]);
        let dy = random_tensor(2, &[3, 3]);
        let gradient = values(&backward(5, &ids, &dy).unwrap());
        let dy = values(&dy);
        for c in 0..3 {
            assert_eq!(gradient[12 + c], dy[c] + dy[6 + c]);
            assert_eq!((gradient[c], gradient[3 + c]), (dy[3 + c], 0.0));
        }
    }

    #[test]
    fn ids_beyond_the_table_are_refused() {
        let table = random_tensor(1, &[5, 3]);
        assert!(forward(&table, &[5]).is_err());
        assert!(backward(5, &[0, 5], &random_tensor(1, &[2, 3])).is_err());
        assert!(backward(5, &[0], &random_tensor(1, &[2, 3])).is_err());
    }
}
