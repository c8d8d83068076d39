//! Which projections an adapter adapts: `target_modules` and `exclude_modules`, as PEFT reads them.
//!
//! A list names modules by their last name (`q_proj`) or a dotted end of their path; a string is a regular expression
//! over the whole path, or `all-linear`. Names alone are taken as they stand. Of everything else the adapter's tensors
//! tell which layers there are; a tensor of a module that is not selected would be ignored by PEFT, so it is refused.

use std::{collections::BTreeSet, path::Path};

use fancy_regex::Regex;
use serde_json::Value;

use super::{is_off, weights};
use crate::{
    error::{Error, Result},
    foreign,
    model::{adapter::PROJECTIONS, safetensors::SafetensorsFile},
};

/// The adapted projections of `adapter_config.json`.
pub(super) fn targets(json: &Value, dir: &Path) -> Result<Vec<String>> {
    let of = |key: &str| json.get(key).unwrap_or(&Value::Null);
    let targets = Pattern::read("target_modules", of("target_modules"))?.ok_or_else(|| wrong("target_modules"))?;
    let excluded = Pattern::read("exclude_modules", of("exclude_modules"))?;
    match (targets, excluded) {
        (Pattern::All, None) => Ok(PROJECTIONS.map(String::from).to_vec()),
        (Pattern::Ends(names), None) if !names.iter().any(|name| name.contains('.')) => Ok(names),
        (targets, excluded) => Selection { targets, excluded }.of_tensors(dir),
    }
}

fn wrong(key: &str) -> Error {
    Error::model(format!("{key} must be a list of names, a regular expression or \"all-linear\""))
}

/// Modules that a key of the config names.
enum Pattern {
    /// Every projection.
    All,
    /// Those whose path matches as a whole.
    Path(Box<Regex>),
    /// Those whose path is one of these or ends in one, after a dot.
    Ends(Vec<String>),
}

impl Pattern {
    /// What `key` says; `None` where it says nothing.
    fn read(key: &str, value: &Value) -> Result<Option<Self>> {
        match value {
            value if is_off(value) => Ok(None),
            Value::String(name) if name == "all-linear" => Ok(Some(Self::All)),
            Value::String(name) if PROJECTIONS.contains(&name.as_str()) => Ok(Some(Self::Ends(vec![name.clone()]))),
            Value::String(pattern) if !pattern.is_empty() => {
                Regex::new(&format!("^(?:{pattern})$")).map(|regex| Some(Self::Path(Box::new(regex)))).map_err(|_| {
                    let pattern = foreign::name(pattern);
                    Error::model(format!("{key} = \"{pattern}\" is not a regular expression"))
                })
            }
            Value::Array(names) => {
                let names: Option<Vec<String>> = names.iter().map(|name| name.as_str().map(String::from)).collect();
                names.map(|names| Some(Self::Ends(names))).ok_or_else(|| wrong(key))
            }
            _ => Err(wrong(key)),
        }
    }

    fn names(&self, module: &str) -> Result<bool> {
        match self {
            Self::All => Ok(true),
            Self::Path(regex) => regex.is_match(module).map_err(|_| {
                let regex = foreign::name(regex.as_str());
                Error::model(format!("the regular expression \"{regex}\" takes too long"))
            }),
            Self::Ends(names) => {
                let ends = |name: &String| module.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                Ok(names.iter().any(|name| name == module || ends(name)))
            }
        }
    }
}

/// `target_modules` without `exclude_modules`.
struct Selection {
    targets: Pattern,
    excluded: Option<Pattern>,
}

impl Selection {
    fn holds(&self, module: &str) -> Result<bool> {
        let excluded = self.excluded.as_ref().map_or(Ok(false), |excluded| excluded.names(module))?;
        Ok(!excluded && self.targets.names(module)?)
    }

    /// The projections, in the order of [`PROJECTIONS`], that are selected in a layer that the adapter has tensors of.
    fn of_tensors(&self, dir: &Path) -> Result<Vec<String>> {
        let file = SafetensorsFile::open(&weights(dir)?)?;
        let modules: BTreeSet<&str> = file.entries.keys().filter_map(|name| module_of(name)).collect();
        for module in &modules {
            if !self.holds(module)? {
                return Err(Error::model(format!(
                    "the adapter has tensors of {}, which target_modules and exclude_modules leave out",
                    foreign::name(module)
                )));
            }
        }
        // `model.layers.N`, one a layer.
        let layers: BTreeSet<String> =
            modules.iter().map(|module| module.split('.').take(3).collect::<Vec<_>>().join(".")).collect();
        let mut selected = Vec::new();
        for projection in PROJECTIONS {
            let is_mlp = matches!(projection, "gate_proj" | "up_proj" | "down_proj");
            let block = if is_mlp { "mlp" } else { "self_attn" };
            for layer in &layers {
                if self.holds(&format!("{layer}.{block}.{projection}"))? {
                    selected.push(projection.to_owned());
                    break;
                }
            }
        }
        Ok(selected)
    }
}

/// The module that a tensor adapts, `model.layers.0.self_attn.q_proj`, as PEFT names it in a Llama.
fn module_of(tensor: &str) -> Option<&str> {
    tensor.strip_prefix("base_model.model.")?.split_once(".lora_A.").map(|(module, _)| module)
}
