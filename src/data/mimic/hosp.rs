//! What MIMIC-IV's hospital tables know of a note's patient and admission.

use std::{collections::HashMap, path::Path};

use indicatif::ProgressBar;

use super::files::MimicTable;
use crate::{
    data::problems::Problems,
    error::{Error, Result},
};

/// Columns of a record that come from these tables.
pub const COLUMNS: [&str; 5] = ["sex", "race", "insurance", "admission_type", "anchor_year_group"];

const PATIENTS: &[&str] = &["subject_id", "gender", "anchor_year_group"];
const ADMISSIONS: &[&str] = &["hadm_id", "race", "insurance", "admission_type"];
const ONCE: &str = "a patient and an admission have one row each";

/// Values of a table's rows by their key. There are few different values: each is kept once.
struct Rows {
    values: Vec<String>,
    rows: HashMap<Box<str>, Vec<u16>>,
    sha1: String,
}

impl Rows {
    fn read(path: &Path, columns: &'static [&'static str], bar: &ProgressBar) -> Result<Self> {
        let mut table = MimicTable::open(path, columns, bar)?;
        let mut rows = Self { values: Vec::new(), rows: HashMap::new(), sha1: String::new() };
        let mut places: HashMap<String, u16> = HashMap::new();
        let mut problems = Problems::default();
        while let Some((place, cells)) = table.next(&mut problems)? {
            let mut cells = cells.into_iter();
            let key = cells.next().unwrap_or_default();
            let mut row = Vec::with_capacity(columns.len() - 1);
            for (value, column) in cells.zip(&columns[1..]) {
                let known = places.get(&value).copied().or_else(|| {
                    let new = u16::try_from(rows.values.len()).ok()?;
                    rows.values.push(value.trim().to_owned());
                    places.insert(value, new);
                    Some(new)
                });
                match known {
                    Some(value) => row.push(value),
                    None => {
                        return Err(Error::data(format!(
                            "{}, {place}, field {column}: the table has over 65,536 different values",
                            path.display()
                        ))
                        .hint("is it MIMIC-IV's table of this name?"));
                    }
                }
            }
            if key.trim().is_empty() {
                problems.add(format!("{place}, field {}: is blank", columns[0]), ONCE);
            } else if rows.rows.insert(key.trim().into(), row).is_some() {
                problems.add(format!("{place}, field {}: occurs a second time", columns[0]), ONCE);
            }
        }
        rows.sha1 = table.sha1();
        problems.into_result(path, rows)
    }

    /// Column `at` behind the key; `None` for an unknown key and for a blank.
    fn value(&self, key: &str, at: usize) -> Option<&str> {
        let value = self.values.get(usize::from(*self.rows.get(key.trim())?.get(at)?))?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }
}

/// The tables `patients` and `admissions`.
pub struct Hospital {
    patients: Rows,
    admissions: Rows,
    /// The groups of years that patients were first seen in, in order.
    pub year_groups: Vec<String>,
}

impl Hospital {
    /// Reads both tables.
    pub fn read(patients: &Path, admissions: &Path, bar: &ProgressBar) -> Result<Self> {
        let patients = Rows::read(patients, PATIENTS, bar)?;
        let admissions = Rows::read(admissions, ADMISSIONS, bar)?;
        let keys = patients.rows.keys();
        let mut year_groups: Vec<String> =
            keys.filter_map(|key| patients.value(key, 1)).map(str::to_owned).collect::<Vec<_>>();
        year_groups.sort();
        year_groups.dedup();
        Ok(Self { patients, admissions, year_groups })
    }

    /// SHA-1 of both tables, unpacked.
    pub fn sha1(&self) -> [&str; 2] {
        [&self.patients.sha1, &self.admissions.sha1]
    }

    /// Whether the tables have this patient and this admission.
    pub fn has(&self, subject: &str, admission: &str) -> bool {
        self.patients.rows.contains_key(subject.trim()) && self.admissions.rows.contains_key(admission.trim())
    }

    /// The values of [`COLUMNS`].
    pub fn values(&self, subject: &str, admission: &str) -> [Option<&str>; 5] {
        let of_patient = |at| self.patients.value(subject, at);
        let of_admission = |at| self.admissions.value(admission, at);
        [of_patient(0), of_admission(0), of_admission(1), of_admission(2), of_patient(1)]
    }
}
