//! The LCD benchmark out of MIMIC-IV-Note 2.2: which notes it has, under which ids, with which text.
//!
//! ```text
//! discharge.csv(.gz) ─▶ clean ─▶ id ─▶ in labels.json? ─▶ train|dev|test.json, metadata.json
//! patients, admissions (.csv, .csv.gz) ───────────────────┘ subgroup columns
//! ```
//!
//! # The definition
//!
//! That of `create_data.py` in Machine-Learning-for-Medical-Language/long-clinical-doc at commit 680b66e, which made
//! all LCD files there are:
//!
//! - **Notes**: the rows of `discharge.csv` in file order, as pandas reads them: RFC 4180, a cell's line breaks kept as
//!   they are, `\r` and `\n` each for itself.
//! - **Text** ([`clean::text`]), in this order: `&#039;` becomes an apostrophe; each `\n` and each `\r` becomes
//!   ` <cr> `; a tab becomes a space; quotation marks go; runs of two or more `_` go together with the white space
//!   behind them; then the words, split at white space, are joined by single spaces. White space is Python's: Unicode's
//!   and U+001C to U+001F.
//! - **Id** ([`clean::id`]): SHA-256 of the `note_id`, of the text, and of a constant, combined by exclusive or; as a
//!   number in hexadecimal behind `0x` without leading zeros, and of that the first 32 characters.
//! - **Labels and splits**: a task's `labels.json` maps ids to `data_type` and the label, whose key is the task's name.
//!   A note whose id it lacks is left out.
//! - **Files**: `{"data": [{text, TASK, data_type, id}, …]}` in file order, ASCII, indented by two; `metadata.json`
//!   maps ids to the note's other cells. A note that occurs twice has one record, at its first place.
//!
//! Ours adds keys behind `id` (`group` = `subject_id`, subgroup columns), and to `metadata.json` the key `clsgen`,
//! which says what the build was made of. A cell of metadata without a value is null, where Python writes `NaN`.

mod agree;
mod ascii;
mod build;
mod clean;
mod files;
mod hosp;
mod labels;

pub use agree::{Agreement, ReadBuild};
pub use build::{Build, Built, FILES, build};

/// The benchmark's splits.
const SPLITS: [&str; 3] = ["train", "dev", "test"];

/// Records of each split in the benchmark.
const EXPECTED: [usize; 3] = [34_759, 7_505, 7_568];

/// SHA-1 of the files that the benchmark names: of `discharge.csv` unpacked, and of the tasks' `labels.json`.
const KNOWN: [(&str, &str); 5] = [
    ("c4f0cfcd00bb8cbb118b1613a5c93f31a361e82b", "discharge.csv of MIMIC-IV-Note 2.2"),
    ("a9ac402818385f6ab5a574b4516abffde95d641a", "discharge.csv of MIMIC-IV-Note 2.2, as first published"),
    ("8f3d596892981316a990e4cd5853d1095716e867", "labels.json of out_hospital_mortality_30"),
    ("00aced32e373aa7a9195125d9514b4bbdb68cc71", "labels.json of out_hospital_mortality_60"),
    ("fa1e7f2803478657dc7dae3a1409c22cb7bd4897", "labels.json of out_hospital_mortality_90"),
];

/// What a file of this SHA-1 is, where the benchmark names it.
fn known(sha1: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(digest, _)| *digest == sha1).map(|(_, name)| *name)
}
