//! `RUN/eval/calibration.json`: calibrators fitted on dev before test labels are read, and the one
//! `predict --calibrated` applies.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    costs,
    folder::{CALIBRATION, Folder, THRESHOLDS},
    frozen::{self, Frozen, Named},
    inputs, positive, targets,
};
use crate::{
    config::Calibrate,
    context::Context,
    data::Predictions,
    error::{Error, Result},
    foreign,
    generate::scoring,
    metrics::{
        AnySample,
        calibrators::{Calibrator, ISOTONIC_MINIMUM, Method},
        multiclass::{self, Temperature},
    },
    storage,
};

/// A calibrator, or why dev allows none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The map; null where it cannot be fitted.
    pub calibrator: Option<Calibrator>,
    /// Why it is null.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// `calibration.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// Version of this file's shape.
    pub schema: u32,
    /// The checkpoint whose dev predictions these are; null for a prediction file.
    pub checkpoint: Option<Named>,
    /// The dev predictions.
    pub dev: Named,
    /// Records of dev.
    pub n: usize,
    /// The method that is applied (`eval.calibrate`).
    pub method: Method,
    /// Every method, fitted to the same dev records.
    pub methods: BTreeMap<Method, Fit>,
    /// BLAKE3 of this file without this key: what is applied to patients' probabilities was not edited by hand.
    #[serde(default)]
    pub blake3: String,
}

impl Fitted {
    /// Fits every method on `dev`, which `frozen` names; `None` under `eval.calibrate = "none"`.
    /// Of more than two classes there is the temperature alone.
    fn fit(context: &Context, dev: &AnySample, frozen: &Frozen) -> Result<Option<Self>> {
        let eval = &context.config.eval;
        let Some(method) = chosen(eval.calibrate) else { return Ok(None) };
        if matches!(dev, AnySample::More(_)) && method != Method::Temperature {
            let message = format!("eval.calibrate = \"{}\" maps one probability, of two classes", method.name());
            return Err(Error::usage(message)
                .hint("of more than two classes take eval.calibrate = \"temperature\" or \"none\""));
        }
        if method == Method::Isotonic && dev.len() < ISOTONIC_MINIMUM && !eval.force_isotonic {
            let message = format!(
                "eval.calibrate = \"isotonic\" needs {ISOTONIC_MINIMUM} dev records, {} holds {}",
                frozen.dev.path,
                dev.len()
            );
            return Err(Error::usage(message).hint(
                "take eval.calibrate = \"platt\" or \"temperature\", or insist with --set eval.force_isotonic=true",
            ));
        }
        let fitted = |method| match dev {
            AnySample::Two(dev) => Calibrator::fit(dev, method, eval.force_isotonic),
            AnySample::More(dev) => multiclass::Temperature::fit(dev)
                .map(|Temperature { temperature }| Calibrator::Temperature { temperature }),
        };
        let methods = match dev {
            AnySample::Two(_) => &Method::ALL[..],
            AnySample::More(_) => &[Method::Temperature],
        };
        let fit = |&method: &Method| match fitted(method) {
            Ok(calibrator) => (method, Fit { calibrator: Some(calibrator), reason: None }),
            Err(reason) => (method, Fit { calibrator: None, reason: Some(reason) }),
        };
        let fitted = Self {
            schema: 1,
            checkpoint: frozen.checkpoint.clone(),
            dev: frozen.dev.clone(),
            n: dev.len(),
            method,
            methods: methods.iter().map(fit).collect(),
            blake3: String::new(),
        };
        if let Err(reason) = fitted.chosen() {
            tracing::warn!("no {} calibrator: {reason}", method.name());
        }
        Ok(Some(fitted))
    }

    /// The calibrator that is applied, or why there is none.
    pub fn chosen(&self) -> Result<&Calibrator, String> {
        let fit = self.methods.get(&self.method).ok_or_else(|| format!("{} was not fitted", self.method.name()))?;
        fit.calibrator.as_ref().ok_or_else(|| fit.reason.clone().unwrap_or_else(|| "no reason given".to_owned()))
    }

    /// The temperature that is applied, where that is the method.
    pub fn temperature(&self) -> Option<f64> {
        match self.chosen() {
            Ok(Calibrator::Temperature { temperature }) => Some(*temperature),
            _ => None,
        }
    }

    /// Writes the file; an evaluation without a calibrator takes an earlier one's away.
    fn write(fitted: Option<&Self>, folder: &Folder, dry_run: bool) -> Result<()> {
        let bytes = match fitted {
            Some(fitted) => Some(storage::json(&Self { blake3: fitted.hash()?, ..fitted.clone() })?),
            None => None,
        };
        frozen::write(folder, CALIBRATION, bytes.as_deref(), dry_run)
    }

    fn hash(&self) -> Result<String> {
        Ok(storage::hash_bytes(&storage::json(&Self { blake3: String::new(), ..self.clone() })?))
    }
}

/// Thresholds and calibrator of `dev`, named `shown` in their files, which are on disk before the labels of what is
/// scored are read.
pub fn freeze(
    context: &Context,
    folder: &Folder,
    dev: &Predictions,
    shown: &Path,
    checkpoint: Option<Named>,
) -> Result<(Frozen, Option<Fitted>)> {
    let sample = inputs::sample(dev, &context.config.task.labels, None)?;
    let tuned_on = (&sample, positive(context)?);
    let frozen = Frozen::tune(tuned_on, (costs(context), &targets(context)), checkpoint, shown, &dev.blake3);
    // May be refused: before anything is written.
    let fitted = Fitted::fit(context, &sample, &frozen)?;
    frozen::write(folder, THRESHOLDS, Some(&frozen.bytes()?), context.dry_run)?;
    Fitted::write(fitted.as_ref(), folder, context.dry_run)?;
    Ok((frozen, fitted))
}

fn chosen(calibrate: Calibrate) -> Option<Method> {
    match calibrate {
        Calibrate::None => None,
        Calibrate::Temperature => Some(Method::Temperature),
        Calibrate::Platt => Some(Method::Platt),
        Calibrate::Isotonic => Some(Method::Isotonic),
    }
}

/// The calibrator that `eval` saved for the checkpoint `dir`, given as `model` (itself or its run), and the hash of its
/// file.
pub fn saved(model: &Path, dir: &Path) -> Result<(Calibrator, String)> {
    let hint =
        "run `clsgen eval` on this run first: it fits a calibrator on dev (eval.calibrate), or leave --calibrated out";
    let refuse = |message: String| Error::usage(format!("--calibrated: {message}")).hint(hint);
    // A checkpoint is RUN/checkpoints/epoch-NN.
    let of_checkpoint = dir.canonicalize().ok().and_then(|dir| Some(dir.parent()?.parent()?.to_owned()));
    let candidates =
        std::iter::once(model.to_owned()).chain(of_checkpoint).map(|run| run.join("eval").join(CALIBRATION));
    let path = candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        refuse(format!("there is no {} of {}", Path::new("eval").join(CALIBRATION).display(), model.display()))
    })?;
    let bytes = foreign::read(&path, foreign::LARGE).map_err(|e| storage::error("cannot read", &path, &e))?;
    let fitted: Fitted =
        serde_json::from_slice(&bytes).map_err(|e| refuse(format!("{} cannot be read: {e}", path.display())))?;
    if fitted.blake3 != fitted.hash()? {
        let what = if fitted.blake3.is_empty() {
            "is of an older clsgen, without a hash of its content"
        } else {
            "was changed after it was written"
        };
        return Err(refuse(format!("{} {what}", path.display())));
    }
    match &fitted.checkpoint {
        None => {
            return Err(refuse(format!(
                "{} was fitted to a prediction file, which names no checkpoint",
                path.display()
            )));
        }
        Some(named) if named.blake3 != scoring::checkpoint_hash(dir)? => {
            return Err(refuse(format!(
                "{} was fitted for another checkpoint, {}, not {}",
                path.display(),
                named.path,
                dir.display()
            )));
        }
        Some(_) => {}
    }
    let calibrator = fitted.chosen().map_err(|reason| {
        refuse(format!("{} holds no calibrator: {reason}", path.display()))
            .hint("leave --calibrated out: this run's dev split gives none")
    })?;
    Ok((calibrator.clone(), storage::hash_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Sample, threshold::Costs};

    fn dev() -> AnySample {
        let mut dev = Sample::new();
        (0..60).for_each(|i| dev.push(f64::from(i) / 60.0, i % 3 == 0 || i > 40, None, None));
        AnySample::Two(dev)
    }

    fn frozen(dev: &AnySample) -> Frozen {
        Frozen::tune((dev, None), (Costs::default(), &[]), None, Path::new("dev.jsonl"), "hash")
    }

    #[test]
    fn isotonic_on_few_records_is_refused_unless_forced() {
        let mut context = Context::for_test(Path::new("unused"));
        context.config.eval.calibrate = Calibrate::Isotonic;
        let error = Fitted::fit(&context, &dev(), &frozen(&dev())).unwrap_err();
        assert_eq!((error.exit_code(), error.hint_text().is_some()), (2, true));
        context.config.eval.force_isotonic = true;
        let fitted = Fitted::fit(&context, &dev(), &frozen(&dev())).unwrap().unwrap();
        assert!(matches!(fitted.chosen(), Ok(Calibrator::Isotonic { .. })));
    }

    #[test]
    fn every_method_is_kept_and_what_cannot_be_fitted_says_why() {
        let context = Context::for_test(Path::new("unused"));
        let fitted = Fitted::fit(&context, &dev(), &frozen(&dev())).unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&storage::json(&fitted).unwrap()).unwrap();
        assert_eq!(json["method"], "temperature");
        assert!(json["methods"]["temperature"]["calibrator"]["temperature"].is_f64());
        assert!(json["methods"]["isotonic"]["reason"].as_str().unwrap().contains("1000"));
        assert_eq!(serde_json::from_value::<Fitted>(json).unwrap(), fitted);
        let mut one_class = Sample::new();
        one_class.push(0.5, true, None, None);
        let one_class = AnySample::Two(one_class);
        let fitted = Fitted::fit(&context, &one_class, &frozen(&one_class)).unwrap().unwrap();
        assert!(fitted.chosen().unwrap_err().contains("one class"));
    }
}
