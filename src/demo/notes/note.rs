//! From a patient to a sectioned discharge note: what the risk depends on first, then sentences without risk until
//! the note is long enough.

use super::{
    draws::Draws,
    filler,
    patient::Patient,
    words::{DISPOSITION, FINDINGS, FindingSection, MOBILITY},
};

/// How often an absent finding is denied in so many words, and how often it is only mentioned.
const NEGATED: f64 = 0.55;
const DISTRACTED: f64 = 0.25;

/// Sections in the order of a note.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Header,
    Complaint,
    Procedure,
    Story,
    History,
    Social,
    Family,
    Exam,
    Results,
    Course,
    AdmissionMedicines,
    DischargeMedicines,
    Disposition,
    Diagnosis,
    Condition,
    Instructions,
    FollowUp,
}

const SECTIONS: [(Section, &str, &str); 17] = [
    (Section::Header, "", "\n"),
    (Section::Complaint, "Chief Complaint:", "\n"),
    (Section::Procedure, "Major Surgical or Invasive Procedure:", "\n"),
    (Section::Story, "History of Present Illness:", " "),
    (Section::History, "Past Medical History:", "\n"),
    (Section::Social, "Social History:", " "),
    (Section::Family, "Family History:", " "),
    (Section::Exam, "Physical Exam:", "\n"),
    (Section::Results, "Pertinent Results:", "\n"),
    (Section::Course, "Brief Hospital Course:", "\n"),
    (Section::AdmissionMedicines, "Medications on Admission:", "\n"),
    (Section::DischargeMedicines, "Discharge Medications:", "\n"),
    (Section::Disposition, "Discharge Disposition:", "\n"),
    (Section::Diagnosis, "Discharge Diagnosis:", "\n"),
    (Section::Condition, "Discharge Condition:", "\n"),
    (Section::Instructions, "Discharge Instructions:", " "),
    (Section::FollowUp, "Followup Instructions:", "\n"),
];

/// The lines of a note by section, in the order they were added.
struct Draft {
    lines: Vec<(Section, String)>,
    words: usize,
}

impl Draft {
    fn add(&mut self, section: Section, line: impl Into<String>) {
        let line = line.into();
        if !self.lines.iter().any(|(_, have)| *have == line) {
            self.words += line.split_whitespace().count();
            self.lines.push((section, line));
        }
    }

    fn text(&self, patient: &Patient, draws: &mut Draws) -> String {
        let mut parts = Vec::new();
        for (section, title, joint) in SECTIONS {
            let mut lines: Vec<String> =
                self.lines.iter().filter(|(of, _)| *of == section).map(|(_, line)| line.clone()).collect();
            match section {
                // Shuffled, so that a finding has no place of its own; numbered, as lists are in notes.
                Section::History | Section::AdmissionMedicines | Section::DischargeMedicines => {
                    lines = draws
                        .order(lines.len())
                        .into_iter()
                        .enumerate()
                        .map(|(i, place)| format!("{}. {}", i + 1, lines[place]))
                        .collect();
                }
                // The first line (the main problem, the vital signs) stays first.
                Section::Course | Section::Exam if !lines.is_empty() => {
                    let rest = lines.split_off(1);
                    lines.extend(draws.order(rest.len()).into_iter().map(|place| rest[place].clone()));
                }
                Section::Results => {
                    lines = draws.order(lines.len()).into_iter().map(|place| lines[place].clone()).collect()
                }
                _ => {}
            }
            if !lines.is_empty() {
                let body = lines.join(joint);
                parts.push(if title.is_empty() { body } else { format!("{title}\n{body}") });
            }
        }
        fill(&parts.join("\n\n"), patient, draws)
    }
}

/// Fills the placeholders of a template.
fn fill(text: &str, patient: &Patient, draws: &mut Draws) -> String {
    let (upper, lower, possessive, objective) =
        if patient.female { ("She", "she", "her", "her") } else { ("He", "he", "his", "him") };
    let text = text
        .replace("{He}", upper)
        .replace("{he}", lower)
        .replace("{his}", possessive)
        .replace("{him}", objective)
        .replace("{creatinine}", &format!("{:.1}", patient.creatinine));
    let mut filled = String::with_capacity(text.len());
    for (i, part) in text.split("{days}").enumerate() {
        if i > 0 {
            filled += &(2 + draws.below(7)).to_string();
        }
        filled += part;
    }
    filled
}

/// Writes a note of about `words` words (no shorter than its risk-bearing part).
pub(super) fn write(patient: &Patient, words: usize, draws: &mut Draws) -> String {
    let mut draft = Draft { lines: Vec::new(), words: 30 };
    core(&mut draft, patient, draws);
    let mut fillers = fillers(patient, draws);
    // Taken from the end of a drawn order: every section grows at once.
    while draft.words < words {
        let Some((section, line)) = fillers.pop() else { break };
        draft.add(section, line);
    }
    draft.text(patient, draws)
}

/// What every note has: its frame and one trace of everything the risk depends on.
fn core(draft: &mut Draft, patient: &Patient, draws: &mut Draws) {
    let scenario = patient.scenario();
    let sex = if patient.female { ("F", "woman", "female") } else { ("M", "man", "male") };
    draft.add(
        Section::Header,
        format!(
            "Name: ___    Unit No: ___\nAdmission Date: ___    Discharge Date: ___\nSex: {}\nService: {}",
            sex.0, scenario.service
        ),
    );
    draft.add(Section::Header, format!("Allergies: {}", draws.pick(filler::ALLERGIES)));
    draft.add(Section::Complaint, draws.pick(scenario.complaints));
    draft.add(Section::Procedure, scenario.procedure);
    let opening = match draws.below(3) {
        0 => format!("This is a {} year old {} who presents with the above complaint.", patient.age, sex.1),
        1 => format!("{} yo {} with the history below.", patient.age, sex.0),
        _ => format!("The patient is a {}-year-old {}.", patient.age, sex.2),
    };
    draft.add(Section::Story, opening);
    draft.add(Section::Story, draws.pick(scenario.stories));
    draft.add(
        Section::Exam,
        format!(
            "VS: T {:.1} HR {} BP {}/{} RR {} O2 {}%",
            draws.normal(98.2, 0.5),
            62 + draws.below(38),
            98 + draws.below(56),
            54 + draws.below(32),
            14 + draws.below(9),
            92 + draws.below(8)
        ),
    );
    draft.add(Section::Course, draws.pick(scenario.courses));
    for (finding, present) in FINDINGS.iter().zip(patient.findings) {
        let section = match finding.place {
            FindingSection::Story => Section::Story,
            FindingSection::History => Section::History,
            FindingSection::Exam => Section::Exam,
            FindingSection::Course => Section::Course,
        };
        let manner = draws.uniform();
        let list = if present {
            finding.stated
        } else if manner < NEGATED {
            finding.negated
        } else if manner < NEGATED + DISTRACTED {
            finding.distractor
        } else {
            continue;
        };
        draft.add(section, draws.pick(list));
    }
    let collapsed = |name: &str, value: f64| format!("___ BLOOD {name}-{value:.1}");
    draft.add(Section::Results, collapsed("Creat", patient.creatinine));
    draft.add(Section::Results, collapsed("Albumin", patient.albumin));
    draft.add(Section::Results, collapsed("Lactate", patient.lactate));
    draft.add(Section::Disposition, draws.pick(DISPOSITION[patient.disposition].stated));
    draft.add(Section::Diagnosis, format!("Primary: {}", scenario.diagnosis));
    draft.add(Section::Condition, draws.pick(MOBILITY[patient.mobility].stated));
    for medicine in scenario.medicines {
        draft.add(Section::DischargeMedicines, *medicine);
    }
}

/// Sentences without risk, in a drawn order.
fn fillers(patient: &Patient, draws: &mut Draws) -> Vec<(Section, String)> {
    let mut all: Vec<(Section, String)> = Vec::new();
    let lists: [(Section, &[&str]); 10] = [
        (Section::Story, filler::REVIEW),
        (Section::History, filler::SURGERIES),
        (Section::Family, filler::FAMILY),
        (Section::Social, filler::SOCIAL),
        (Section::Exam, filler::EXAM),
        (Section::Results, filler::STUDIES),
        (Section::Course, filler::COURSE),
        (Section::DischargeMedicines, filler::MEDICINES),
        (Section::Instructions, filler::INSTRUCTIONS),
        (Section::FollowUp, filler::FOLLOW_UP),
    ];
    for (section, list) in lists {
        all.extend(list.iter().map(|line| (section, (*line).to_owned())));
    }
    for (problem, course) in filler::CHRONIC {
        all.push((Section::Course, (*course).to_owned()));
        all.push((Section::History, (*problem).to_owned()));
    }
    // Medicines at home carry a start year, so that the two lists differ.
    all.extend(
        filler::MEDICINES
            .iter()
            .map(|line| (Section::AdmissionMedicines, (*line).replace("DAILY", "daily").replace(" PO", " by mouth"))),
    );
    for day in 0..4 {
        for (panel, chunk) in filler::LABS.chunks(6).enumerate() {
            let values = chunk.iter().map(|&(name, mean, deviation, digits)| {
                format!("{name}-{:.digits$}", draws.normal(mean, deviation).max(mean * 0.2))
            });
            all.push((
                Section::Results,
                format!(
                    "___ 0{}:{}5{}M BLOOD {}",
                    5 + day,
                    panel,
                    if day % 2 == 0 { "A" } else { "P" },
                    values.collect::<Vec<_>>().join(" ")
                ),
            ));
        }
    }
    if !patient.scenario().elective {
        all.push((
            Section::Course,
            "The patient was admitted through the emergency department and treated by the inpatient team.".into(),
        ));
    }
    let order = draws.order(all.len());
    let mut slots: Vec<Option<(Section, String)>> = all.into_iter().map(Some).collect();
    order.into_iter().filter_map(|place| slots[place].take()).collect()
}
