//! A folder shaped as MIMIC-IV and MIMIC-IV-Note are, and the tasks of the benchmark over it: nothing of it is real.

use std::{io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};

use crate::common::{self, Outcome, Scratch, in_scratch};

const SPLITS: [&str; 3] = ["train", "dev", "test"];
pub const GROUPS: [&str; 4] = ["2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019"];
pub const TASK: &str = "out_hospital_mortality_30";
const HEADER: &str = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n";

/// A note as `tests/golden/lcd.py` wrote it: with the text and id that the definition gives it.
pub struct Note {
    pub number: usize,
    pub note_id: String,
    pub note: String,
    pub text: String,
    pub id: String,
}

impl Note {
    /// Notes of one patient have one `subject_id`.
    pub fn subject(&self) -> String {
        self.note_id.split('-').next().unwrap().to_owned()
    }

    /// Every fourth note has no label: the benchmark leaves it out.
    pub fn is_labelled(&self) -> bool {
        self.number % 4 != 3
    }

    pub fn split(&self) -> &'static str {
        SPLITS[self.number % 7 % 3]
    }

    pub fn label(&self) -> u8 {
        u8::from(self.number.is_multiple_of(5))
    }

    pub fn year_group(&self) -> &'static str {
        GROUPS[self.subject().parse::<usize>().unwrap() % 4]
    }

    pub fn sex(&self) -> &'static str {
        ["F", "M"][self.subject().parse::<usize>().unwrap() % 2]
    }

    /// The cells before the text, in the order of the header.
    pub fn metadata(&self) -> [String; 7] {
        let storetime = if self.number == 9 { String::new() } else { "2150-01-03 10:00:00".into() };
        let [admission, sequence] = [20_000_000 + self.number, self.number % 30].map(|number| number.to_string());
        let time = "2150-01-02 00:00:00".into();
        [self.note_id.clone(), self.subject(), admission, "DS".into(), sequence, time, storetime]
    }

    fn row(&self, ending: &str) -> String {
        format!("{},\"{}\"{ending}", self.metadata().join(","), self.note.replace('"', "\"\""))
    }
}

/// The fixture's notes.
pub fn notes() -> Vec<Note> {
    let rows: Vec<Value> = serde_json::from_str(include_str!("../golden/lcd.json")).unwrap();
    let note = |(number, row): (usize, &Value)| {
        let cell = |name: &str| row[name].as_str().unwrap().to_owned();
        Note { number, note_id: cell("note_id"), note: cell("note"), text: cell("text"), id: cell("id") }
    };
    rows.iter().enumerate().map(note).collect()
}

/// A scratch directory with the tables and tasks.
pub struct Mimic {
    scratch: Scratch,
    pub notes: Vec<Note>,
}

in_scratch!(Mimic, scratch);

impl Mimic {
    pub fn new() -> Self {
        let mimic = Self { scratch: Scratch::new(), notes: notes() };
        mimic.write("note/discharge.csv", mimic.discharge("\n"));
        mimic.write_labels("task30", TASK, |_, _| {});
        let mut patients = "subject_id,gender,anchor_age,anchor_year_group\n".to_owned();
        let mut admissions = "subject_id,hadm_id,admission_type,insurance,race\n".to_owned();
        for note in &mimic.notes {
            let [_, subject, admission, ..] = note.metadata();
            let row = format!("{subject},{},60,{}\n", note.sex(), note.year_group());
            if !patients.contains(&row) {
                patients.push_str(&row);
            }
            // A blank is an insurance that nobody wrote down.
            let insurance = ["Medicare", ""][note.number % 2];
            admissions.push_str(&format!("{subject},{admission},URGENT,{insurance},\"BLACK, OTHER\"\n"));
        }
        mimic.write("hosp/patients.csv.gz", packed(patients.as_bytes()));
        mimic.write("hosp/admissions.csv", admissions);
        mimic
    }

    /// The notes' table with these line ends.
    pub fn discharge(&self, ending: &str) -> String {
        HEADER.replace('\n', ending) + &self.notes.iter().map(|note| note.row(ending)).collect::<String>()
    }

    /// A task's folder; `change` may spoil an entry.
    pub fn write_labels(&self, dir: &str, task: &str, change: impl Fn(&Note, &mut Map<String, Value>)) {
        let mut labels = Map::new();
        for note in self.notes.iter().filter(|note| note.is_labelled()) {
            let Value::Object(mut entry) = json!({ "data_type": note.split(), task: note.label() }) else { continue };
            change(note, &mut entry);
            if !entry.is_empty() {
                labels.insert(note.id.clone(), Value::Object(entry));
            }
        }
        self.write(&format!("{dir}/labels.json"), serde_json::to_string_pretty(&labels).unwrap());
    }

    /// Records of a file of the build in `dir`.
    pub fn records(&self, dir: &str, split: &str) -> Vec<Value> {
        let file: Value = serde_json::from_str(&self.text(&format!("{dir}/{split}.json"))).unwrap();
        file["data"].as_array().unwrap().clone()
    }

    /// `clsgen data lcd` here, on the notes and the task of 30 days, with these flags more. No word of a note is told.
    pub fn build(&self, flags: &[&str]) -> Outcome {
        self.lcd(&[&["--mimic-note", ".", "--task", "task30", "--out", "build"], flags].concat())
    }

    /// `clsgen data lcd` here.
    pub fn lcd(&self, flags: &[&str]) -> Outcome {
        let told = common::outcome(&mut self.command(flags));
        assert!(!told.stderr.contains("Name:") && !told.stderr.contains("hurts"), "{told:?}");
        told
    }

    pub fn command(&self, flags: &[&str]) -> std::process::Command {
        let mut command = common::clsgen();
        command.current_dir(self.path("")).args(["data", "lcd"]).args(flags);
        command
    }

    /// What lies in the scratch directory.
    pub fn names(&self) -> Vec<String> {
        names(&self.path(""))
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

pub fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
