//! What the risk depends on, with its weights and its words. `{he}` and the like are filled by the writer.

/// Where a sentence about a finding belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FindingSection {
    Story,
    History,
    Exam,
    Course,
}

/// A finding that is there or not.
pub(super) struct Finding {
    /// Noun phrase for explanations.
    pub name: &'static str,
    /// Log-odds it adds.
    pub weight: f64,
    /// How often it is there at average frailty.
    pub rate: f64,
    pub place: FindingSection,
    /// Sentences that say it is there.
    pub stated: &'static [&'static str],
    /// Sentences that say it is not.
    pub negated: &'static [&'static str],
    /// Sentences that name it without saying either: relatives, years ago, ruled out.
    pub distractor: &'static [&'static str],
}

/// Every finding that is there or not.
pub(super) const FINDINGS: [Finding; 9] = [
    Finding {
        name: "metastatic cancer",
        weight: 1.7,
        rate: 0.11,
        place: FindingSection::Story,
        stated: &[
            "{He} carries a diagnosis of metastatic lung cancer with progression on second line chemotherapy.",
            "History is notable for pancreatic adenocarcinoma with liver metastases.",
            "Known metastatic colon cancer, now with new osseous lesions on CT.",
            "Staging scans again showed widely metastatic breast cancer.",
        ],
        negated: &[
            "No evidence of metastatic disease on imaging.",
            "CT torso showed no masses and no metastases.",
            "{He} has no history of malignancy.",
        ],
        distractor: &[
            "Mother died of metastatic colon cancer at 71.",
            "Remote basal cell carcinoma, excised, no recurrence.",
            "A brother is being treated for lung cancer.",
        ],
    },
    Finding {
        name: "a decision for comfort oriented care",
        weight: 1.4,
        rate: 0.1,
        place: FindingSection::Course,
        stated: &[
            "Palliative care met with the family and the patient was made DNR/DNI.",
            "After a goals of care discussion {he} elected to be DNR/DNI with no return to the ICU.",
            "The health care proxy asked that treatment focus on comfort; code status was changed to DNR/DNI.",
        ],
        negated: &[
            "Code status was confirmed as full code.",
            "{He} remains full code.",
            "Goals of care were reviewed and {he} wishes all treatment.",
        ],
        distractor: &[
            "A health care proxy form was completed.",
            "Palliative care was not consulted.",
            "Social work met with the family about insurance.",
        ],
    },
    Finding {
        name: "cachexia with weight loss",
        weight: 0.9,
        rate: 0.1,
        place: FindingSection::Exam,
        stated: &[
            "General: cachectic, temporal wasting, ill appearing.",
            "General: thin and frail with marked muscle wasting, 30 lb weight loss this year.",
            "Gen: chronically ill appearing, cachectic.",
        ],
        negated: &[
            "General: well nourished, no acute distress.",
            "Gen: well appearing, pleasant, NAD.",
            "General: obese, comfortable, no weight loss.",
        ],
        distractor: &[
            "General: alert, lying in bed.",
            "Gen: sitting in chair, conversant.",
            "General: tired but appropriate.",
        ],
    },
    Finding {
        name: "advanced dementia",
        weight: 0.5,
        rate: 0.12,
        place: FindingSection::History,
        stated: &[
            "Advanced Alzheimer's dementia, nonverbal at baseline",
            "Vascular dementia, dependent for all ADLs",
            "Severe dementia with recurrent aspiration",
        ],
        negated: &["No cognitive impairment", "Memory intact per family"],
        distractor: &[
            "Mild forgetfulness, never worked up",
            "Depression, stable",
            "Wife with dementia, patient is her caregiver",
        ],
    },
    Finding {
        name: "septic shock",
        weight: 0.8,
        rate: 0.11,
        place: FindingSection::Course,
        stated: &[
            "{He} developed septic shock and needed norepinephrine for three days.",
            "Course was complicated by septic shock from a gram negative bacteremia, treated with pressors and \
            meropenem.",
            "On hospital day 2 {he} became hypotensive with septic shock and was started on vasopressors.",
        ],
        negated: &[
            "{He} remained hemodynamically stable and never required pressors.",
            "There was no sign of sepsis.",
            "Blood cultures were negative and sepsis was ruled out.",
        ],
        distractor: &[
            "Of note {he} had septic shock from a kidney stone in 2009.",
            "Sepsis was considered on arrival given tachycardia.",
            "Blood cultures were drawn in the ED.",
        ],
    },
    Finding {
        name: "respiratory failure with mechanical ventilation",
        weight: 0.7,
        rate: 0.13,
        place: FindingSection::Course,
        stated: &[
            "{He} was intubated for hypoxemic respiratory failure and extubated on day 6.",
            "Respiratory status worsened and {he} required mechanical ventilation in the MICU.",
            "{He} was transferred to the ICU, intubated, and weaned with difficulty.",
        ],
        negated: &[
            "{He} did not require intubation.",
            "Oxygen was weaned to room air without trouble.",
            "There was no need for ICU level care.",
        ],
        distractor: &[
            "{He} was intubated only for the procedure and extubated in the OR.",
            "Prior intubation for asthma as a teenager.",
            "A CPAP machine is used at home.",
        ],
    },
    Finding {
        name: "acute kidney injury",
        weight: 0.5,
        rate: 0.24,
        place: FindingSection::Course,
        stated: &[
            "Acute kidney injury with a creatinine peak of {creatinine} was attributed to ATN.",
            "# AKI: creatinine rose to {creatinine}, renal was consulted, no dialysis was needed.",
            "Renal function declined to a creatinine of {creatinine} and did not fully recover.",
        ],
        negated: &[
            "Renal function remained at baseline.",
            "Creatinine was stable at {creatinine} throughout.",
            "No acute kidney injury occurred despite contrast.",
        ],
        distractor: &[
            "NSAIDs were avoided to protect the kidneys.",
            "A renal ultrasound showed a simple cyst.",
            "Urine output was recorded daily.",
        ],
    },
    Finding {
        name: "end stage heart failure",
        weight: 0.7,
        rate: 0.12,
        place: FindingSection::History,
        stated: &[
            "End stage systolic heart failure, EF 15%, NYHA class IV",
            "Ischemic cardiomyopathy with EF 10-15%, not a transplant candidate",
            "CHF, NYHA IV, on home milrinone",
        ],
        negated: &["No heart failure, normal echo last year", "Preserved EF of 60% on recent echo"],
        distractor: &[
            "Mild diastolic dysfunction",
            "Father with heart failure",
            "Rare palpitations, normal stress test",
        ],
    },
    Finding {
        name: "repeated recent admissions",
        weight: 0.5,
        rate: 0.16,
        place: FindingSection::Story,
        stated: &[
            "This is {his} fourth admission in six months.",
            "{He} was discharged only nine days ago after a similar stay.",
            "{He} has been hospitalized repeatedly this year, most recently last month.",
        ],
        negated: &["{He} has not been hospitalized in years.", "This is {his} first admission."],
        distractor: &[
            "{He} last saw {his} primary care doctor in the spring.",
            "Records from an outside hospital were requested.",
            "{He} called the clinic twice before coming in.",
        ],
    },
];

/// Mobility at discharge with its log-odds.
pub(super) struct Grade {
    /// Noun phrase for explanations.
    pub name: &'static str,
    /// Log-odds it adds.
    pub weight: f64,
    /// Sentences that say it.
    pub stated: &'static [&'static str],
}

/// Activity status, from best to worst.
pub(super) const MOBILITY: [Grade; 3] = [
    Grade {
        name: "independent ambulation",
        weight: -0.8,
        stated: &[
            "Activity Status: Ambulatory - Independent.",
            "Walking the halls without assistance.",
            "Ambulates independently, steady gait.",
        ],
    },
    Grade {
        name: "ambulation with assistance",
        weight: 0.1,
        stated: &[
            "Activity Status: Out of Bed with assistance to chair or wheelchair.",
            "Walks short distances with a walker and one assist.",
            "Transfers with help of physical therapy.",
        ],
    },
    Grade {
        name: "being bedbound",
        weight: 1.0,
        stated: &[
            "Activity Status: Bedbound.",
            "Bedbound, turned every two hours.",
            "Unable to get out of bed, requires a lift.",
        ],
    },
];

/// Where the patient goes, from lightest to heaviest care.
pub(super) const DISPOSITION: [Grade; 4] = [
    Grade { name: "discharge to home", weight: -0.7, stated: &["Home", "Home, with family"] },
    Grade {
        name: "discharge to home with services",
        weight: 0.0,
        stated: &["Home With Service", "Home with VNA and physical therapy"],
    },
    Grade {
        name: "discharge to a skilled nursing facility",
        weight: 0.5,
        stated: &["Extended Care - skilled nursing facility", "Extended Care, nursing home"],
    },
    Grade {
        name: "discharge to a long term acute care hospital",
        weight: 1.0,
        stated: &["Extended Care - long term acute care hospital", "LTACH"],
    },
];
