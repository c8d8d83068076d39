//! Whether two builds agree, record by record.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::BufReader,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::SPLITS;
use crate::{
    data::{lcd::LcdRows, open::unreadable, problems::Problems},
    error::{Result, ResultExt},
    foreign,
    signals::check_interrupted,
};

/// Ids that are listed of those that differ.
const LISTED: usize = 20;
const FORM: &str = "a record of an LCD file is an object with an `id`, which no other record of the build has";

/// What is remembered of a field's value: enough to tell it from any other.
type Digest = [u8; 16];

/// A record of a build.
struct Seen {
    split: usize,
    fields: BTreeMap<String, Digest>,
}

/// The records of a build, read to be compared.
#[derive(Default)]
pub struct ReadBuild {
    folder: PathBuf,
    by_id: HashMap<String, Seen>,
    /// Ids of each split in the order of its file.
    order: [blake3::Hasher; SPLITS.len()],
    counts: [usize; SPLITS.len()],
    names: BTreeSet<String>,
}

impl ReadBuild {
    /// Reads the files of all splits in `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut records = Self { folder: dir.to_owned(), ..Self::default() };
        for (split, name) in SPLITS.iter().enumerate() {
            let path = dir.join(format!("{name}.json"));
            let file = foreign::open(&path).map_err(|e| unreadable(&e).context(path.display()))?;
            let mut rows =
                LcdRows::open(BufReader::with_capacity(1 << 18, file), Vec::new()).context(path.display())?;
            let mut problems = Problems::default();
            while let Some(bytes) = rows.element().context(path.display())? {
                check_interrupted()?;
                records.counts[split] += 1;
                let place = format!("record {}", records.counts[split]);
                let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(&bytes) else {
                    problems.add(format!("{place}: is not a JSON object"), FORM);
                    continue;
                };
                let Some(Value::String(id)) = object.remove("id") else {
                    problems.add(format!("{place}, field id: is missing"), FORM);
                    continue;
                };
                records.order[split].update(id.as_bytes()).update(b"\n");
                let digest = |value: &Value| {
                    let mut short = [0; 16];
                    short.copy_from_slice(&blake3::hash(value.to_string().as_bytes()).as_bytes()[..16]);
                    short
                };
                let fields: BTreeMap<String, Digest> =
                    object.iter().map(|(name, value)| (name.clone(), digest(value))).collect();
                for name in fields.keys() {
                    if !records.names.contains(name) {
                        records.names.insert(name.clone());
                    }
                }
                if records.by_id.insert(id, Seen { split, fields }).is_some() {
                    problems.add(format!("{place}, field id: occurs a second time"), FORM);
                }
            }
            problems.into_result(&path, ())?;
        }
        Ok(records)
    }

    /// Compares two builds by id.
    pub fn agreement(&self, other: &Self) -> Agreement {
        let (a, b) = (self, other);
        let mut ids: Vec<&String> =
            a.by_id.keys().chain(b.by_id.keys().filter(|id| !a.by_id.contains_key(*id))).collect();
        ids.sort();
        let common: Vec<&String> = a.names.intersection(&b.names).collect();
        let mut missing = [0, 0];
        let mut differing = BTreeMap::new();
        let mut listed = Vec::new();
        for id in ids {
            let what = match (a.by_id.get(id), b.by_id.get(id)) {
                (Some(a), Some(b)) => {
                    let differs = |name: &&&String| a.fields.get(**name) != b.fields.get(**name);
                    let mut fields: Vec<&str> = common.iter().filter(differs).map(|name| name.as_str()).collect();
                    if a.split != b.split {
                        fields.push("split");
                    }
                    for field in &fields {
                        *differing.entry((*field).to_owned()).or_insert(0) += 1;
                    }
                    fields.iter().map(|field| foreign::name(field)).collect::<Vec<_>>().join(", ")
                }
                (Some(_), None) => {
                    missing[1] += 1;
                    format!("not in {}", b.folder.display())
                }
                (None, _) => {
                    missing[0] += 1;
                    format!("not in {}", a.folder.display())
                }
            };
            if !what.is_empty() && listed.len() < LISTED {
                listed.push(format!("{}: {what}", foreign::name(id)));
            }
        }
        let alone = |of: &Self, other: &Self| of.names.difference(&other.names).cloned().collect();
        Agreement {
            counts: std::array::from_fn(|split| [a.counts[split], b.counts[split]]),
            missing,
            differing,
            alone: [alone(a, b), alone(b, a)],
            same_order: a.order.iter().zip(&b.order).all(|(a, b)| a.finalize() == b.finalize()),
            listed,
        }
    }
}

/// How two builds compare.
#[derive(Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Records of each split in either.
    pub counts: [[usize; 2]; SPLITS.len()],
    /// Ids that one of them lacks.
    pub missing: [usize; 2],
    /// Records with another value, by field; a split is the field `data_type`'s file.
    pub differing: BTreeMap<String, usize>,
    /// Fields that only one of them has, which are not compared.
    pub alone: [Vec<String>; 2],
    /// Whether records stand in the same order.
    pub same_order: bool,
    /// The first ids that differ, with what differs.
    pub listed: Vec<String>,
}

impl Agreement {
    /// Whether both have the same records, with the same values in the fields that both have.
    pub fn agree(&self) -> bool {
        self.missing == [0, 0] && self.differing.is_empty()
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        let counts: Map<String, Value> =
            SPLITS.iter().zip(self.counts).map(|(split, counts)| ((*split).to_owned(), json!(counts))).collect();
        json!({
            "agree": self.agree(),
            "records": counts,
            "missing": self.missing,
            "differing": self.differing,
            "only_in": self.alone,
            "same_order": self.same_order,
            "first": self.listed,
        })
    }
}
