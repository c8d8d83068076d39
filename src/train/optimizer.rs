//! AdamW over every trainable tensor, in name order, after clipping by the global norm (paper A.2.3).
//!
//! PyTorch's betas and eps, decoupled decay on every trainable tensor. A tensor without a gradient is left alone, as
//! PyTorch leaves `grad = None` alone; but moments are corrected by the run's steps, PyTorch's by the tensor's own.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::{
    config,
    error::{Error, Result},
    foreign,
    model::Gradients,
    ops::adamw,
};

/// PyTorch's default decay of the first moment.
pub const BETA1: f64 = 0.9;
/// PyTorch's default decay of the second moment.
pub const BETA2: f64 = 0.999;
/// PyTorch's default epsilon.
pub const EPS: f64 = 1e-8;

/// First and second moment of a tensor, f32.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Mean of gradients, `exp_avg`.
    pub first: Tensor,
    /// Mean of squared gradients, `exp_avg_sq`.
    pub second: Tensor,
}

/// The trained tensors and their moments.
#[derive(Debug)]
pub struct Optimizer {
    parameters: BTreeMap<String, Tensor>,
    moments: BTreeMap<String, Moments>,
    weight_decay: f64,
    max_grad_norm: f64,
}

impl Optimizer {
    /// A fresh optimizer over `parameters`, which share storage with the model.
    pub fn new(parameters: BTreeMap<String, Tensor>, settings: &config::Train) -> Result<Self> {
        let zeros = |tensor: &Tensor| -> Result<Moments> {
            let zeros = || Tensor::zeros(tensor.shape(), DType::F32, tensor.device());
            Ok(Moments { first: zeros()?, second: zeros()? })
        };
        let moments =
            parameters.iter().map(|(name, tensor)| Ok((name.clone(), zeros(tensor)?))).collect::<Result<_>>()?;
        Ok(Self { parameters, moments, weight_decay: settings.weight_decay, max_grad_norm: settings.max_grad_norm })
    }

    /// Clips and applies the gradients of step `k`, counted from 1; returns their norm before clipping.
    ///
    /// A norm that is not finite changes nothing and is an error.
    pub fn step(&mut self, gradients: &Gradients, k: usize, lr: f64) -> Result<f64> {
        // Only trained tensors count: under objective `lm` the head, say, has no part in the norm.
        let settings =
            adamw::AdamW { lr, beta1: BETA1, beta2: BETA2, eps: EPS, weight_decay: self.weight_decay, step: k as u64 };
        let part = |(name, gradient)| {
            let param = self.parameters.get(name)?;
            let Moments { first: m, second: v } = self.moments.get(name)?;
            Some(adamw::ParamState { param, gradient, m, v })
        };
        let parts: Vec<adamw::ParamState<'_>> = gradients.iter().filter_map(part).collect();
        let norm = adamw::step(&parts, self.max_grad_norm, &settings)?;
        if !norm.is_finite() {
            return Err(Error::run(format!("the gradient norm of step {k} is {norm}")));
        }
        Ok(norm)
    }

    /// The trained tensors.
    pub fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    /// Numbers in all trained tensors.
    pub fn elements(&self) -> u64 {
        self.parameters.values().map(|tensor| tensor.elem_count() as u64).sum()
    }

    /// The moments as `trainer.safetensors` holds them: `exp_avg.<name>`, `exp_avg_sq.<name>`.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let pair = |(name, moments): (&String, &Moments)| {
            [(format!("exp_avg.{name}"), moments.first.clone()), (format!("exp_avg_sq.{name}"), moments.second.clone())]
        };
        self.moments.iter().flat_map(pair).collect()
    }

    /// Takes the moments of a checkpoint; names and shapes must be those of the trained tensors.
    pub fn restore(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<()> {
        for (name, moments) in &mut self.moments {
            let mut take = |key: String, shape: &candle_core::Shape| match state.remove(&key) {
                Some(tensor) if tensor.shape() == shape && tensor.dtype() == DType::F32 => Ok(tensor),
                Some(_) => Err(Error::model(format!(
                    "trainer.safetensors: {key} has another shape or type than the model's tensor"
                ))),
                None => Err(Error::model(format!("trainer.safetensors: {key} is missing"))),
            };
            moments.first = take(format!("exp_avg.{name}"), &moments.first.shape().clone())?;
            moments.second = take(format!("exp_avg_sq.{name}"), &moments.second.shape().clone())?;
        }
        match state.keys().next() {
            Some(extra) => {
                let extra = foreign::name(extra);
                Err(Error::model(format!("trainer.safetensors: {extra} belongs to no trained tensor")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn optimizer(max_grad_norm: f64) -> Optimizer {
        let tensor = Tensor::new(&[1.0f32, -2.0], &Device::Cpu).unwrap();
        let settings = config::Train { max_grad_norm, ..config::Train::default() };
        Optimizer::new(BTreeMap::from([("w".to_owned(), tensor)]), &settings).unwrap()
    }

    fn gradient(values: [f32; 2]) -> Gradients {
        Gradients::from([("w".to_owned(), Tensor::new(&values, &Device::Cpu).unwrap())])
    }

    /// `torch.optim.AdamW([p], lr=0.1, weight_decay=0.01)` after `clip_grad_norm_([p], 1.0)`, gradients (3, 4) then
    /// (-1, 0.5).
    #[test]
    fn two_steps_are_those_of_pytorch() {
        let mut optimizer = optimizer(1.0);
        assert_eq!(optimizer.step(&gradient([3.0, 4.0]), 1, 0.1).unwrap(), 5.0);
        optimizer.step(&gradient([-1.0, 0.5]), 2, 0.1).unwrap();
        let values: Vec<f32> = optimizer.parameters["w"].to_vec1().unwrap();
        let expected = [0.922_592_64f32, -2.190_706_5];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut optimizer = optimizer(1.0);
        assert!(optimizer.step(&gradient([f32::NAN, 1.0]), 1, 0.1).is_err());
        assert_eq!(optimizer.parameters["w"].to_vec1::<f32>().unwrap(), [1.0, -2.0]);
    }

    #[test]
    fn moments_survive_a_round_trip_and_strangers_are_refused() {
        let mut first = optimizer(1.0);
        first.step(&gradient([1.0, 1.0]), 1, 0.1).unwrap();
        let mut second = optimizer(1.0);
        second.restore(first.state()).unwrap();
        assert_eq!(
            second.state()["exp_avg.w"].to_vec1::<f32>().unwrap(),
            first.state()["exp_avg.w"].to_vec1::<f32>().unwrap()
        );
        let mut state = first.state();
        state.insert("exp_avg.other".into(), state["exp_avg.w"].clone());
        assert_eq!(second.restore(state).unwrap_err().exit_code(), 4);
        assert_eq!(second.restore(BTreeMap::new()).unwrap_err().exit_code(), 4);
    }
}
