//! A linear map of a layer, with its adapter: `y = W x + b + scaling · B (A dropout(x))`.
//!
//! ```text
//! x (tokens, in)   W (out, in)   A (rank, in)   B (out, rank)   u = scaling · A dropout(x) (tokens, rank)
//! dB = dyᵀ u       du = scaling · dy B          dA = duᵀ dropout(x)
//! dx = dy W + dropout'(du A)                    dW = dyᵀ x      db = Σ dy       (the last two: full training)
//! ```

mod infer;

use candle_core::Tensor;

use super::{
    Gradients, LoraDropout, accumulate,
    adapter::{self, Adapter},
    precision::BaseWeight,
    read_rows::ReadRows,
};
use crate::{
    config::Parameters,
    error::{Error, Result},
    ops::{
        Offsets,
        dropout::DropoutKey,
        linear::{self, Kernel, array},
        lora::{self, Backward, LoraA, LoraB, Rows},
    },
    rng::{Rng, hash_name, streams},
};

/// What a layer is told of the training pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerPass<'a> {
    pub offsets: &'a Offsets,
    pub positions: &'a [u32],
    pub dropout: Option<&'a LoraDropout>,
    pub trains: Parameters,
    /// Of the last layer, the rows that are read; `None`: all. The gradient of every other row is 0.
    pub read: Option<&'a ReadRows>,
    /// Position of each sequence's first row; `None`: 0.
    first: Option<&'a [usize]>,
}

impl<'a> LayerPass<'a> {
    pub fn new(
        offsets: &'a Offsets,
        positions: &'a [u32],
        dropout: Option<&'a LoraDropout>,
        trains: Parameters,
    ) -> Self {
        Self { offsets, positions, dropout, trains, read: None, first: None }
    }

    /// The same in the last layer, of which `read` names the rows that are read.
    pub fn of_last(&self, read: Option<&'a ReadRows>) -> Self {
        Self { read, ..*self }
    }

    /// The same over the rows that are read, and no others.
    pub fn of_read(&self) -> Self {
        self.read.map_or(*self, |read| Self {
            offsets: &read.offsets,
            positions: &read.positions,
            read: None,
            first: Some(&read.first),
            ..*self
        })
    }

    /// The rows of a projection's input.
    fn rows(&self) -> Rows<'a> {
        Rows { offsets: self.offsets, first: self.first }
    }

    /// `dy W` of `dy (tokens, out)`.
    fn backward_input(&self, dy: &Tensor, weight: &BaseWeight) -> Result<Tensor> {
        match self.read {
            Some(read) => read.scatter(&weight.backward_input(&read.gather(dy)?)?),
            None => weight.backward_input(dy),
        }
    }
}

/// What a projection's backward does with the gradient of its input, `dx (tokens, in)`.
pub(super) enum GradInput {
    /// It is not needed and not computed.
    Skip,
    /// It is returned.
    Write,
    /// It is added in place to this gradient, that of another projection of the same input.
    Accumulate(Tensor),
}

impl GradInput {
    pub fn write_if(wanted: bool) -> Self {
        if wanted { Self::Write } else { Self::Skip }
    }

    /// For the next projection of the same input, after one has returned `dx`.
    pub fn after(dx: Option<Tensor>) -> Self {
        dx.map_or(Self::Skip, Self::Accumulate)
    }

    /// The gradient so far.
    fn sum(self) -> Option<Tensor> {
        match self {
            Self::Accumulate(dx) => Some(dx),
            Self::Skip | Self::Write => None,
        }
    }
}

/// Base weight, bias and adapter of one projection.
#[derive(Debug, Clone)]
pub(super) struct Projection {
    /// HF's name without `.weight`: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// `(out, in)`.
    pub weight: BaseWeight,
    /// `(out)`, f32.
    pub bias: Option<Tensor>,
    pub adapter: Option<Adapter>,
}

impl Projection {
    /// The last part of the name, which LoRA targets are matched with.
    pub fn kind(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// Whether a pass trains anything here, and so needs the input again for the backward pass.
    pub fn trains(&self, trains: Parameters) -> bool {
        trains == Parameters::Full || self.adapter.is_some()
    }

    /// `W x + b` of each.
    fn base_each<const N: usize>(each: [&Self; N], x: &Tensor, kernel: Kernel) -> Result<[Tensor; N]> {
        BaseWeight::forward_each(each.map(|projection| (&projection.weight, projection.bias.as_ref())), x, kernel)
    }

    /// `(y, u)` with the pass's dropout on the adapter's input; `u` goes into [`Projection::backward`].
    pub fn forward(&self, x: &Tensor, pass: &LayerPass) -> Result<(Tensor, Option<Tensor>)> {
        let [forward] = Self::forward_each([self], x, pass)?;
        Ok(forward)
    }

    /// [`Projection::forward`] of projections of one input.
    pub fn forward_each<const N: usize>(
        each: [&Self; N],
        x: &Tensor,
        pass: &LayerPass,
    ) -> Result<[(Tensor, Option<Tensor>); N]> {
        let ys = Self::base_each(each, x, Kernel::Forward)?;
        let lora_as = each.map(|projection| projection.lora_a(pass));
        let us = lora::forward_each(x, lora_as.each_ref().map(Option::as_ref), pass.rows())?;
        let pairs = std::array::from_fn(|i| us[i].as_ref().zip(each[i].adapter.as_ref().map(|adapter| &adapter.b)));
        let ys = lora::add_forward_each(ys, pairs)?;
        array(ys.into_iter().zip(us).map(Ok))
    }

    /// Adds the gradients of what is trained; gives dx as `dx` says. `x` may be `None` when nothing here is trained;
    /// `u` is what forward gave, or `None` to compute it again.
    pub fn backward(
        &self,
        x: Option<&Tensor>,
        u: Option<&Tensor>,
        dy: &Tensor,
        pass: &LayerPass,
        dx: GradInput,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        Self::backward_each([(self, u, dy)], x, pass, dx, gradients)
    }

    /// [`Projection::backward`] of projections of one input, each with its `u` and dy: one after the other, or, where
    /// adapters are fused, first the bases and then all adapters in one pass.
    pub fn backward_each<const N: usize>(
        each: [(&Self, Option<&Tensor>, &Tensor); N],
        x: Option<&Tensor>,
        pass: &LayerPass,
        mut dx: GradInput,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let lora_as = each.each_ref().map(|(projection, ..)| projection.lora_a(pass));
        let adapted: Vec<&LoraA<'_>> = lora_as.iter().flatten().collect();
        let together = if x.is_some_and(|x| lora::fuses(x, &adapted, pass.rows())) { N } else { 1 };
        for projections in each.chunks(together) {
            for (projection, _, dy) in projections {
                dx = GradInput::after(projection.base_backward(x, dy, pass, dx, gradients)?);
            }
            if let (Some(x), Parameters::Lora) = (x, pass.trains) {
                dx = GradInput::after(Self::adapters_backward(projections, x, pass, dx.sum(), gradients)?);
            }
        }
        Ok(dx.sum())
    }

    /// The base's part of [`Projection::backward`].
    fn base_backward(
        &self,
        x: Option<&Tensor>,
        dy: &Tensor,
        pass: &LayerPass,
        dx: GradInput,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let dx = match dx {
            GradInput::Skip => None,
            GradInput::Write => Some(pass.backward_input(dy, &self.weight)?),
            GradInput::Accumulate(other) => Some(self.weight.add_backward_input(other, dy)?),
        };
        if let (Parameters::Full, Some(x)) = (pass.trains, x) {
            self.base_gradients(x, dy, pass, gradients)?;
        }
        Ok(dx)
    }

    /// The adapters' part, onto `dx`.
    fn adapters_backward(
        each: &[(&Self, Option<&Tensor>, &Tensor)],
        x: &Tensor,
        pass: &LayerPass,
        dx: Option<Tensor>,
        gradients: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let adapted = each.iter().filter_map(|(projection, u, dy)| {
            Some((projection, projection.adapter.as_ref()?, projection.lora_a(pass)?, u, *dy))
        });
        let adapted: Vec<_> = adapted.collect();
        let outputs =
            adapted.iter().map(|(_, adapter, _, _, dy)| LoraB { dy, b: &adapter.b, scaling: adapter.scaling });
        let dus = lora::backward_u_each(&outputs.collect::<Vec<_>>())?;
        let mut names = Vec::with_capacity(adapted.len());
        let mut inner = Vec::with_capacity(adapted.len());
        for ((projection, _, lora_a, u, dy), du) in adapted.into_iter().zip(dus) {
            let da = gradients.remove(&adapter::name_a(&projection.name));
            names.push((&projection.name, dy));
            inner.push(Backward { lora_a, du, u: u.cloned(), da });
        }
        let dx = lora::backward_each(x, &mut inner, dx, pass.rows())?;
        let pairs = names.iter().zip(&inner).map(|((_, dy), each)| match &each.u {
            Some(u) => Ok((*dy, u)),
            None => Err(Error::run("lora: an adapter without u")),
        });
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let sums = names.iter().map(|(name, _)| gradients.remove(&adapter::name_b(name))).collect();
        let dbs = lora::add_b_gradients(sums, &pairs, pass.offsets)?;
        for (((name, _), each), db) in names.into_iter().zip(inner).zip(dbs) {
            gradients.extend(each.da.map(|da| (adapter::name_a(name), da)));
            gradients.extend(db.map(|db| (adapter::name_b(name), db)));
        }
        Ok(dx)
    }

    fn base_gradients(&self, x: &Tensor, dy: &Tensor, pass: &LayerPass, gradients: &mut Gradients) -> Result<()> {
        weight_gradient(gradients, &format!("{}.weight", self.name), dy, x, pass.offsets)?;
        if self.bias.is_some() {
            for range in pass.offsets.ranges() {
                let rows = dy.narrow(0, range.start, range.len())?;
                accumulate(gradients, &format!("{}.bias", self.name), rows.sum(0)?)?;
            }
        }
        Ok(())
    }

    /// The adapter's part before B, with the pass's dropout.
    fn lora_a(&self, pass: &LayerPass) -> Option<LoraA<'_>> {
        let adapter = self.adapter.as_ref()?;
        let dropout = pass.dropout.map(|settings| {
            let tensor = hash_name(&adapter::name_a(&self.name));
            let steps = settings
                .record_keys
                .iter()
                .map(|&key| tensor.wrapping_add(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
                .collect();
            DropoutKey { p: adapter.dropout, rng: Rng::new(settings.seed, streams::LORA_DROPOUT), steps }
        });
        Some(LoraA { dropout, ..adapter.lora_a() })
    }
}

/// Adds `dyᵀ x`, as [`linear::add_backward_weight`].
fn weight_gradient(gradients: &mut Gradients, name: &str, dy: &Tensor, x: &Tensor, offsets: &Offsets) -> Result<()> {
    add_to(gradients, name, |sum| linear::add_backward_weight(sum, dy, x, offsets))
}

/// Replaces the sum under `name` by what `add` makes of it.
fn add_to(
    gradients: &mut Gradients,
    name: &str,
    add: impl FnOnce(Option<Tensor>) -> Result<Option<Tensor>>,
) -> Result<()> {
    let sum = add(gradients.remove(name))?;
    gradients.extend(sum.map(|sum| (name.to_owned(), sum)));
    Ok(())
}
