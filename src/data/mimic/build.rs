//! One pass over the notes: each that a task has is written to its split. Where splits go by year group, another pass
//! before it finds the groups that these notes' patients are of.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::{
    EXPECTED, SPLITS, ascii, clean, files,
    files::MimicTable,
    hosp::{COLUMNS, Hospital},
    known, labels,
    labels::Tasks,
};
use crate::{
    data::problems::Problems,
    error::{Error, Result},
    storage::{AtomicDir, Writer},
};

/// The files of a build.
pub const FILES: [&str; 4] = ["train.json", "dev.json", "test.json", "metadata.json"];

/// The columns of the notes, in the order of `metadata.json`; the text comes last.
const NOTES: &[&str] = &["note_id", "subject_id", "hadm_id", "note_type", "note_seq", "charttime", "storetime", "text"];
const BLANK: &str = "every note has a note_id, a subject_id and a text: is the file PhysioNet's?";

/// What a build is made of.
#[derive(Debug)]
pub struct Build {
    notes: PathBuf,
    hospital: Option<[PathBuf; 2]>,
    tasks: Vec<PathBuf>,
    by_year_group: bool,
}

impl Build {
    /// Finds the files. `hosp` is needed where splits go by year group.
    pub fn find(note: &Path, hosp: Option<&Path>, tasks: &[PathBuf], by_year_group: bool) -> Result<Self> {
        let table = |name| hosp.map(|dir| files::find(dir, "hosp", name)).transpose();
        let hospital =
            table("patients")?.zip(table("admissions")?).map(|(patients, admissions)| [patients, admissions]);
        Ok(Self { notes: files::find(note, "note", "discharge")?, hospital, tasks: tasks.to_vec(), by_year_group })
    }

    /// Every file that is read.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let tasks = self.tasks.iter().map(|dir| labels::file(dir));
        std::iter::once(self.notes.clone()).chain(self.hospital.iter().flatten().cloned()).chain(tasks).collect()
    }

    /// Their bytes, the tasks' aside and the notes' once a pass: what a progress bar goes over.
    pub fn bytes(&self) -> u64 {
        let passes = 1 + usize::from(self.by_year_group);
        let tables = std::iter::repeat_n(&self.notes, passes).chain(self.hospital.iter().flatten());
        tables.filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// Opens what is read and reads all but the notes; the tasks' names and how many notes they have.
    pub fn check(&self) -> Result<(Vec<String>, usize)> {
        let hidden = ProgressBar::hidden();
        let tasks = Tasks::read(&self.tasks)?;
        self.read_hospital(&hidden)?;
        MimicTable::open(&self.notes, NOTES, &hidden)?;
        Ok((tasks.names, tasks.notes.len()))
    }

    fn read_hospital(&self, bar: &ProgressBar) -> Result<Option<Hospital>> {
        let Some([patients, admissions]) = &self.hospital else { return Ok(None) };
        let hospital = Some(Hospital::read(patients, admissions, bar)?);
        self.check_groups("has", &hospital)?;
        Ok(hospital)
    }

    /// Refuses (exit 3) fewer groups of years than there are splits, where these go by them.
    fn check_groups(&self, have: &str, hospital: &Option<Hospital>) -> Result<()> {
        let tables = self.hospital.as_ref().zip(hospital.as_ref()).filter(|_| self.by_year_group);
        match tables.map(|([patients, _], hospital)| (patients, hospital.year_groups.len())) {
            Some((patients, groups)) if groups < SPLITS.len() => Err(Error::data(format!(
                "{}, field anchor_year_group: {have} {groups} different values, three splits need three",
                patients.display()
            ))
            .hint("leave --split-by out, or name the whole MIMIC-IV by --mimic-hosp")),
            _ => Ok(()),
        }
    }

    /// Leaves of the year groups those that have a patient with one of the tasks' notes: of the others a split would be
    /// empty. What is wrong with a row is told when the notes are read once more.
    fn keep_groups_of_notes(&self, hospital: &mut Hospital, tasks: &Tasks, bar: &ProgressBar) -> Result<()> {
        let mut table = MimicTable::open(&self.notes, NOTES, bar)?;
        let mut found = BTreeSet::new();
        while let Some((_, cells)) = table.next(&mut Problems::default())? {
            let [note, subject, admission, .., text] = &cells[..] else { continue };
            if tasks.notes.contains_key(&clean::id(note, &clean::text(text))) {
                found.extend(hospital.values(subject, admission)[4].map(str::to_owned));
            }
        }
        hospital.year_groups.retain(|group| found.contains(group));
        Ok(())
    }
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// Split, notes that the tasks have, notes written. By year groups the tasks say nothing of a split.
    pub splits: Vec<(&'static str, Option<usize>, usize)>,
    /// Notes that the tasks have and `discharge.csv` lacks.
    pub missing: usize,
    /// Notes whose patient or admission the hospital tables lack.
    pub unknown: usize,
    /// Files whose SHA-1 is none that the benchmark names.
    pub unnamed: Vec<PathBuf>,
    /// All of it, as in `metadata.json`.
    pub record: Value,
}

impl Built {
    /// Whether these are the benchmark's own counts, of files that it names.
    pub fn is_the_benchmark(&self) -> bool {
        self.unnamed.is_empty() && self.missing == 0 && self.splits.iter().zip(EXPECTED).all(|(s, n)| s.2 == n)
    }
}

/// A note that was written.
struct Note {
    id: String,
    /// The cells but for the text.
    cells: Vec<String>,
    split: usize,
}

/// Writes the splits and `metadata.json` into `out`, which is not committed here.
pub fn build(build: &Build, out: &AtomicDir, bar: &ProgressBar) -> Result<Built> {
    let mut tasks = Tasks::read(&build.tasks)?;
    let mut hospital = build.read_hospital(bar)?;
    if let Some(hospital) = hospital.as_mut().filter(|_| build.by_year_group) {
        build.keep_groups_of_notes(hospital, &tasks, bar)?;
    }
    let mut splits = Splits::create(out)?;
    let mut table = MimicTable::open(&build.notes, NOTES, bar)?;
    let mut problems = Problems::default();
    let mut notes: Vec<Note> = Vec::new();
    let mut unknown = 0;
    while let Some((place, mut cells)) = table.next(&mut problems)? {
        let text = clean::text(&cells.pop().unwrap_or_default());
        for (column, cell) in [("note_id", &cells[0]), ("subject_id", &cells[1]), ("text", &text)] {
            if cell.trim().is_empty() {
                problems.add(format!("{place}, field {column}: is blank"), BLANK);
            }
        }
        let id = clean::id(&cells[0], &text);
        let Some(entry) = tasks.notes.get_mut(&id) else { continue };
        if let Some(earlier) = entry.found {
            if notes[earlier].cells[1] != cells[1] {
                problems.add(format!("{place}, field subject_id: is another one where the note stood before"), BLANK);
            }
            // As the benchmark has it, the metadata are those of its last place.
            notes[earlier].cells = cells;
            continue;
        }
        let values = hospital.as_ref().map(|hospital| hospital.values(&cells[1], &cells[2]));
        let split = match (&hospital, build.by_year_group) {
            (Some(hospital), true) => {
                let group = values.and_then(|values| values[4]);
                let Some(split) = group.and_then(|group| split_of(group, &hospital.year_groups)) else {
                    problems.add(
                        format!("{place}, field subject_id: patients.csv has no anchor_year_group of it"),
                        "name the MIMIC-IV of the same version by --mimic-hosp",
                    );
                    continue;
                };
                split
            }
            _ => entry.split,
        };
        unknown += usize::from(hospital.as_ref().is_some_and(|hospital| !hospital.has(&cells[1], &cells[2])));
        entry.found = Some(notes.len());
        let mut record = Map::new();
        record.insert("text".into(), text.into());
        record.extend(tasks.names.iter().cloned().zip(entry.labels.iter().map(|&label| Value::from(label))));
        record.insert("data_type".into(), SPLITS[split].into());
        record.insert("id".into(), id.clone().into());
        record.insert("group".into(), cells[1].trim().into());
        for (column, value) in COLUMNS.into_iter().zip(values.into_iter().flatten()) {
            record.insert(column.into(), value.into());
        }
        // A file that cannot be used is read to its end for its problems, but no more of it is written.
        if problems.is_empty() {
            splits.put(split, &record)?;
        }
        notes.push(Note { id, cells, split });
    }
    problems.into_result(&build.notes, ())?;
    if notes.is_empty() {
        return Err(Error::data(format!("{}: none of its notes is in the tasks' labels.json", build.notes.display()))
            .hint("ids depend on every byte of a note: the notes must be those of MIMIC-IV-Note 2.2"));
    }
    build.check_groups("the patients of the notes have", &hospital)?;
    splits.finish()?;
    let built = describe(build, &tasks, &hospital, (&notes, unknown), table.sha1());
    write_metadata(out, &built.record, &notes)?;
    Ok(built)
}

/// By year groups the last is test, the one before dev, all earlier ones train.
fn split_of(group: &str, groups: &[String]) -> Option<usize> {
    let from_last = groups.iter().rev().position(|known| known == group)?;
    Some((SPLITS.len() - 1).saturating_sub(from_last))
}

fn describe(
    build: &Build,
    tasks: &Tasks,
    hospital: &Option<Hospital>,
    (notes, unknown): (&[Note], usize),
    sha1: String,
) -> Built {
    let count = |split: usize| notes.iter().filter(|note| note.split == split).count();
    let labelled = |split: usize| tasks.notes.values().filter(|entry| entry.split == split).count();
    let splits: Vec<_> = (0..SPLITS.len())
        .map(|split| (SPLITS[split], (!build.by_year_group).then(|| labelled(split)), count(split)))
        .collect();
    let missing = tasks.notes.values().filter(|entry| entry.found.is_none()).count();
    let mut inputs = vec![(build.notes.clone(), sha1)];
    inputs.extend(tasks.files.iter().cloned());
    let unnamed: Vec<PathBuf> =
        inputs.iter().filter(|(_, sha1)| known(sha1).is_none()).map(|(path, _)| path.clone()).collect();
    let tables = build.hospital.iter().flatten().zip(hospital.iter().flat_map(Hospital::sha1));
    inputs.extend(tables.map(|(path, sha1)| (path.clone(), sha1.to_owned())));
    let inputs: Vec<Value> =
        inputs.iter().map(|(path, sha1)| json!({ "path": path, "sha1": sha1, "known_as": known(sha1) })).collect();
    let counts: Map<String, Value> = splits
        .iter()
        .zip(EXPECTED)
        .map(|((name, labelled, written), benchmark)| {
            let benchmark = labelled.map(|_| benchmark);
            ((*name).to_owned(), json!({ "labelled": labelled, "written": written, "benchmark": benchmark }))
        })
        .collect();
    let groups = hospital.as_ref().filter(|_| build.by_year_group).map(|hospital| {
        let named =
            |group: &String| (group.clone(), split_of(group, &hospital.year_groups).map(|at| SPLITS[at]).into());
        hospital.year_groups.iter().map(named).collect::<Map<String, Value>>()
    });
    let mut built = Built { splits, missing, unknown, unnamed, record: Value::Null };
    built.record = json!({
        "schema": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "definition": "long-clinical-doc, create_data.py at 680b66e",
        "tasks": tasks.names,
        "split_by": if build.by_year_group { "year-group" } else { "benchmark" },
        "year_groups": groups,
        "inputs": inputs,
        "counts": counts,
        "labelled_but_missing": missing,
        "not_in_hosp": hospital.as_ref().map(|_| unknown),
        "is_the_benchmark": built.is_the_benchmark(),
    });
    built
}

/// The files of the splits while they are written.
struct Splits(Vec<(Writer, bool)>);

impl Splits {
    fn create(out: &AtomicDir) -> Result<Self> {
        let open = |name: &&str| {
            let mut writer = out.writer(name)?;
            writer.put(b"{\n  \"data\": [")?;
            Ok((writer, true))
        };
        FILES[..SPLITS.len()].iter().map(open).collect::<Result<_>>().map(Self)
    }

    fn put(&mut self, split: usize, record: &Map<String, Value>) -> Result<()> {
        let (writer, first) = &mut self.0[split];
        writer.put(if std::mem::take(first) { b"\n    " } else { b",\n    " })?;
        writer.put(&ascii::indented(record, 2)?)
    }

    fn finish(self) -> Result<()> {
        self.0.into_iter().try_for_each(|(mut writer, empty)| {
            writer.put(if empty { b"]\n}" } else { b"\n  ]\n}" })?;
            writer.finish()
        })
    }
}

/// The benchmark's `metadata.json`, and first in it what the build was made of.
fn write_metadata(out: &AtomicDir, record: &Value, notes: &[Note]) -> Result<()> {
    let mut writer = out.writer(FILES[SPLITS.len()])?;
    writer.put(b"{\n  \"clsgen\": ")?;
    writer.put(&ascii::indented(record, 1)?)?;
    for note in notes {
        let mut metadata: Map<String, Value> =
            NOTES.iter().zip(&note.cells).map(|(column, cell)| ((*column).to_owned(), value(cell))).collect();
        metadata.insert("data_type".into(), SPLITS[note.split].into());
        writer.put(format!(",\n  {}: ", json!(note.id)).as_bytes())?;
        writer.put(&ascii::indented(&metadata, 1)?)?;
    }
    writer.put(b"\n}")?;
    writer.finish()
}

/// A cell of a table: a number where it is one, null where it is blank.
fn value(cell: &str) -> Value {
    match cell.parse::<i64>() {
        Ok(number) => number.into(),
        Err(_) if cell.is_empty() => Value::Null,
        Err(_) => cell.into(),
    }
}
