//! Every rank holds a replica of the model: their gradients are added up before a step, their parameters compared at
//! checkpoints.

use std::{collections::BTreeMap, time::Instant};

use candle_core::{DType, Tensor};

use super::loss::LossSums;
use crate::{
    error::{Error, Result},
    model::Gradients,
    parallel::Collective,
    storage,
};

/// Adds up `gradients` and `sums` over the ranks; returns the seconds that took, `None` where there is one rank.
///
/// All gradients of `parameters` travel as one flat buffer, in name order. A tensor that no rank has a gradient of
/// stays without: the optimizer leaves it alone, as with one process.
pub fn sum(
    ranks: &Collective,
    parameters: &BTreeMap<String, Tensor>,
    gradients: &mut Gradients,
    sums: &mut LossSums,
) -> Result<Option<f64>> {
    if ranks.size() == 1 {
        return Ok(None);
    }
    let start = Instant::now();

    // In f64: the loss sums, then how many ranks have a gradient of each tensor.
    let mut header = vec![sums.generation, sums.classification, sums.consistency];
    header.extend(parameters.keys().map(|name| f64::from(u8::from(gradients.contains_key(name)))));
    ranks.sum_f64(&mut header)?;
    *sums = LossSums { generation: header[0], classification: header[1], consistency: header[2] };
    let trained: Vec<(&String, &Tensor)> = parameters
        .iter()
        .zip(&header[3..])
        .filter(|(_, ranks)| **ranks > 0.0)
        .map(|(parameter, _)| parameter)
        .collect();

    let mut flat = Vec::with_capacity(trained.iter().map(|(_, tensor)| tensor.elem_count()).sum());
    for (name, parameter) in &trained {
        match gradients.remove(*name) {
            Some(gradient) => flat.extend(gradient.flatten_all()?.to_vec1::<f32>()?),
            None => flat.resize(flat.len() + parameter.elem_count(), 0.0),
        }
    }
    ranks.sum(&mut flat)?;
    let mut rest = flat.as_slice();
    for (name, parameter) in trained {
        let (values, others) = rest.split_at(parameter.elem_count());
        gradients.insert(name.clone(), Tensor::from_slice(values, parameter.shape(), parameter.device())?);
        rest = others;
    }
    Ok(Some(start.elapsed().as_secs_f64()))
}

/// Fails where the ranks' `parameters` are not the same, to the bit.
pub fn check_equal(ranks: &Collective, parameters: &BTreeMap<String, Tensor>) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let hashes = ranks.all_gather(hash(parameters)?.as_bytes())?;
    match hashes.iter().position(|hash| *hash != hashes[0]) {
        None => Ok(()),
        Some(rank) => Err(Error::run(format!(
            "the parameters of rank {rank} on {} are not those of rank 0 on {}",
            ranks.hosts()[rank],
            ranks.hosts()[0]
        ))
        .hint("give every rank the same kind of device; the last checkpoint is whole, --resume goes on from there")),
    }
}

/// One hash of all tensors, in name order.
fn hash(parameters: &BTreeMap<String, Tensor>) -> Result<String> {
    let mut hashes = String::new();
    for tensor in parameters.values() {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        hashes += &storage::hash_bytes(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    }
    Ok(storage::hash_bytes(hashes.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, Objective, Parameters},
        train::{
            examples::Example,
            optimizer::Optimizer,
            plan::BatchPlan,
            step::{Trainer, tests::trainer},
        },
    };

    /// Eleven records of different lengths, some without a target: a last group leaves ranks with nothing to do.
    fn examples() -> Vec<Example> {
        let ids = |start: usize, n: usize| (start..start + n).map(|i| (7 * i % 39) as u32 + 1).collect::<Vec<_>>();
        let target = |i: usize| if i % 4 == 1 { Vec::new() } else { ids(i + 3, 1 + i % 3) };
        (0..11)
            .map(|i| Example { prompt: ids(i, 2 + i % 5), target: target(i), class: (i % 2) as u32, record: 0 })
            .collect()
    }

    fn values(parameters: &BTreeMap<String, Tensor>) -> Vec<f32> {
        parameters.values().flat_map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    }

    /// Losses of 20 steps of 6 records on these ranks, and the parameters before and after.
    fn run(ranks: &Collective, parameters: Parameters) -> (Vec<f64>, [Vec<f32>; 2]) {
        let mut trainer: Trainer = trainer(Objective::Joint);
        let n = ranks.size();
        trainer.plan =
            BatchPlan { records: 11, batch_size: 1, accumulation: 6 / n, ranks: n, epochs: 10, ..trainer.plan.clone() };
        if parameters == Parameters::Full {
            trainer.model.llama.lora = None;
        }
        trainer.pass.parameters = parameters;
        let trained = trainer.model.trainable(parameters).unwrap();
        trainer.optimizer = Optimizer::new(trained, &config::Train::default()).unwrap();
        trainer.ranks = ranks.clone();
        let before = values(trainer.optimizer.parameters());
        let examples = examples();
        let step = |k| {
            let order = trainer.plan.order(trainer.plan.epoch_of(k));
            let report = trainer.step(k, &examples, &order).unwrap();
            assert_eq!(report.allreduce_seconds.is_some(), n > 1);
            report.losses.loss
        };
        let losses = (1..=20).map(step).collect();
        check_equal(ranks, trainer.optimizer.parameters()).unwrap();
        (losses, [before, values(trainer.optimizer.parameters())])
    }

    #[test]
    fn ranks_train_what_one_process_trains() {
        for parameters in [Parameters::Lora, Parameters::Full] {
            let (losses, [before, after]) = run(&Collective::one(), parameters);
            for n in [2, 3] {
                let all: Vec<_> = std::thread::scope(|scope| {
                    let run = |ranks: Collective| scope.spawn(move || run(&ranks, parameters));
                    let threads: Vec<_> = Collective::threads(n).into_iter().map(run).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                });
                for (step, (one, other)) in losses.iter().zip(&all[0].0).enumerate() {
                    assert!((one / other - 1.0).abs() < 1e-5, "{n} ranks, step {step}: {one} {other}");
                }
                let apart = distance(&all[0].1[1], &after) / distance(&after, &before);
                assert!(apart < 1e-3, "{parameters:?} on {n} ranks: {apart}");
                assert!(all.iter().all(|rank| rank.1 == all[0].1));
            }
        }
    }

    #[test]
    fn replicas_that_differ_are_named() {
        let errors: Vec<String> = std::thread::scope(|scope| {
            let check = |ranks: Collective| {
                scope.spawn(move || {
                    let value = if ranks.rank() == 2 { 1.0 + f32::EPSILON } else { 1.0 };
                    let tensor = Tensor::new(&[value], &candle_core::Device::Cpu).unwrap();
                    check_equal(&ranks, &BTreeMap::from([("w".to_owned(), tensor)])).unwrap_err().to_string()
                })
            };
            let threads: Vec<_> = Collective::threads(3).into_iter().map(check).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(errors, ["the parameters of rank 2 on host1 are not those of rank 0 on host0"; 3]);
    }
}
