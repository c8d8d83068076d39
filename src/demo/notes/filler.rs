//! Sentences that carry no risk: what makes a note long. Drawn without repetition within a note.

pub(super) const REVIEW: &[&str] = &[
    "Denies headache, vision changes, rhinorrhea or sore throat.",
    "No abdominal pain, nausea, vomiting, diarrhea or constipation.",
    "Denies dysuria, hematuria or urinary frequency.",
    "No rash, joint pain or easy bruising.",
    "Denies recent travel or sick contacts.",
    "No focal weakness, numbness or trouble with speech.",
    "Endorses poor sleep and a decreased appetite this week.",
    "In the ED initial vitals were stable and labs were sent.",
    "The patient received one liter of normal saline before transfer.",
    "On arrival to the floor, {he} had no other complaints.",
];

pub(super) const CHRONIC: &[(&str, &str)] = &[
    (
        "Hypertension",
        "# Hypertension: home lisinopril was held on admission and restarted at discharge with good blood pressure \
        control.",
    ),
    (
        "Type 2 diabetes mellitus",
        "# Diabetes: metformin was held, insulin sliding scale was used, fingersticks ranged from 120 to 210, \
        metformin restarted at discharge.",
    ),
    ("Hyperlipidemia", "# Hyperlipidemia: continued home statin without change during this stay."),
    ("Hypothyroidism", "# Hypothyroidism: TSH was checked and within range, continued levothyroxine at the home dose."),
    ("GERD", "# GERD: continued home omeprazole, no reflux symptoms while inpatient."),
    ("Gout", "# Gout: colchicine was held given drug interactions, no flare during admission, continued allopurinol."),
    (
        "Chronic low back pain",
        "# Back pain: lidocaine patch and acetaminophen, home gabapentin continued at a lower dose for sedation.",
    ),
    ("Depression", "# Depression: mood was stable, continued sertraline, social work visited once."),
    (
        "Benign prostatic hypertrophy",
        "# BPH: tamsulosin was continued and the Foley catheter was removed on day 2, passed a voiding trial.",
    ),
    ("Obstructive sleep apnea", "# OSA: used the home mask overnight, continuous oximetry showed no events."),
    ("Osteoporosis", "# Osteoporosis: vitamin D and calcium were continued, bone density testing as an outpatient."),
    (
        "Iron deficiency anemia",
        "# Anemia: chronic and stable, iron studies were consistent with deficiency, oral iron was continued.",
    ),
    ("Glaucoma", "# Glaucoma: continued eye drops, no change in vision."),
    ("Seasonal allergies", "# Allergies: fluticasone nasal spray as needed."),
    ("Diverticulosis", "# Diverticulosis: seen incidentally on CT without inflammation, high fiber diet was advised."),
    ("Anxiety", "# Anxiety: trazodone at night was continued, benzodiazepines were avoided."),
    ("Peripheral neuropathy", "# Neuropathy: continued gabapentin, foot care was reviewed with nursing."),
    ("Stage II chronic kidney disease", "# CKD: medications were renally dosed and nephrotoxins avoided."),
];

pub(super) const SURGERIES: &[&str] = &[
    "Status post appendectomy",
    "Status post cholecystectomy",
    "Tonsillectomy as a child",
    "Cataract surgery, both eyes",
    "Inguinal hernia repair",
    "Carpal tunnel release",
    "Right rotator cuff repair",
];

pub(super) const FAMILY: &[&str] = &[
    "Father with hypertension and stroke.",
    "Mother with diabetes.",
    "Sister with breast cancer, in remission.",
    "No family history of early cardiac disease.",
    "Two healthy children.",
    "Brother died in an accident.",
];

pub(super) const EXAM: &[&str] = &[
    "HEENT: NC/AT, sclerae anicteric, MMM, oropharynx clear.",
    "Neck: supple, no LAD, JVP not elevated.",
    "CV: RRR, normal S1 and S2, no murmurs, rubs or gallops.",
    "Lungs: clear to auscultation bilaterally, no wheezes.",
    "Lungs: scattered crackles at the bases, no accessory muscle use.",
    "Abdomen: soft, non-tender, non-distended, bowel sounds present.",
    "GU: no Foley.",
    "Ext: warm, well perfused, 2+ pulses, no clubbing.",
    "Ext: trace edema to the ankles bilaterally.",
    "Skin: no rashes, small ecchymosis at the IV site.",
    "Neuro: CN II-XII grossly intact, moving all extremities.",
    "Psych: calm, appropriate affect.",
    "Back: no spinal or CVA tenderness.",
];

/// Name, mean, deviation, digits behind the point.
pub(super) const LABS: &[(&str, f64, f64, usize)] = &[
    ("WBC", 9.5, 3.5, 1),
    ("RBC", 3.9, 0.5, 2),
    ("Hgb", 11.6, 1.6, 1),
    ("Hct", 34.8, 4.5, 1),
    ("MCV", 90.0, 5.0, 0),
    ("RDW", 14.2, 1.3, 1),
    ("Plt Ct", 235.0, 70.0, 0),
    ("Glucose", 132.0, 35.0, 0),
    ("Na", 138.0, 3.5, 0),
    ("K", 4.1, 0.4, 1),
    ("Cl", 102.0, 4.0, 0),
    ("HCO3", 25.0, 3.0, 0),
    ("AnGap", 13.0, 2.5, 0),
    ("Calcium", 8.8, 0.5, 1),
    ("Phos", 3.4, 0.6, 1),
    ("Mg", 2.0, 0.2, 1),
    ("ALT", 28.0, 12.0, 0),
    ("AST", 31.0, 12.0, 0),
    ("AlkPhos", 88.0, 25.0, 0),
    ("TotBili", 0.7, 0.3, 1),
    ("PT", 13.2, 1.2, 1),
    ("PTT", 30.5, 3.0, 1),
    ("cTropnT", 0.02, 0.01, 2),
    ("TSH", 2.2, 0.9, 1),
];

pub(super) const STUDIES: &[&str] = &[
    "CXR: heart size is top normal. No pneumothorax. Mild atelectasis at the left base.",
    "ECG: sinus rhythm, left axis deviation, nonspecific ST-T wave changes, no prior for comparison.",
    "CT head: no acute intracranial process. Chronic small vessel changes.",
    "Renal ultrasound: no hydronephrosis. Simple cyst in the left kidney.",
    "TTE: mild symmetric left ventricular hypertrophy. No significant valvular disease.",
    "Lower extremity ultrasound: no deep venous thrombosis in either leg.",
    "KUB: nonobstructive bowel gas pattern with moderate stool.",
    "Microbiology: urine culture with mixed flora consistent with contamination.",
];

pub(super) const COURSE: &[&str] = &[
    "# Nutrition: seen by the dietitian, supplements with meals were recommended and a regular diet was tolerated.",
    "# Delirium: briefly confused on the second night, reoriented, sedating medicines were stopped.",
    "# Constipation: bowel regimen with senna and polyethylene glycol, moved bowels before discharge.",
    "# Insomnia: melatonin at night with some effect.",
    "# Hypokalemia: repleted per sliding scale, normal on the day of discharge.",
    "# Access: peripheral IV, removed before discharge without complication.",
    "# Prophylaxis: subcutaneous heparin and a bowel regimen throughout the stay.",
    "# Rash: mild drug rash on the trunk, treated with a topical steroid, resolving.",
    "# Incidental nodule: a 4 mm lung nodule was seen, repeat CT in twelve months was recommended.",
    "# Hearing loss: cerumen was cleared, audiology follow up as needed.",
    "# Transitional issues: please recheck a basic metabolic panel at the next visit and adjust doses as needed.",
    "# Communication: the plan was reviewed with the patient and a family member who agreed with it.",
];

pub(super) const MEDICINES: &[&str] = &[
    "Lisinopril 10 mg PO DAILY",
    "Atorvastatin 40 mg PO QPM",
    "Aspirin 81 mg PO DAILY",
    "Omeprazole 20 mg PO DAILY",
    "Levothyroxine Sodium 75 mcg PO DAILY",
    "MetFORMIN (Glucophage) 500 mg PO BID",
    "Vitamin D 1000 UNIT PO DAILY",
    "Multivitamins 1 TAB PO DAILY",
    "Sertraline 50 mg PO DAILY",
    "Gabapentin 300 mg PO TID",
    "Amlodipine 5 mg PO DAILY",
    "Tamsulosin 0.4 mg PO QHS",
    "Allopurinol 100 mg PO DAILY",
    "Docusate Sodium 100 mg PO BID",
    "Senna 8.6 mg PO BID:PRN constipation",
    "Acetaminophen 650 mg PO Q6H:PRN pain",
    "Albuterol Inhaler 2 PUFF IH Q6H:PRN wheeze",
    "Latanoprost 0.005% Ophth. Soln. 1 DROP BOTH EYES QHS",
    "Furosemide 20 mg PO DAILY",
    "TraZODone 50 mg PO QHS:PRN insomnia",
];

pub(super) const INSTRUCTIONS: &[&str] = &[
    "Dear Mr./Ms. ___, it was a pleasure to take care of you at ___.",
    "You were admitted because you were not feeling well and needed tests and treatment in the hospital.",
    "Please take all of your medicines as listed and keep the appointments below.",
    "Weigh yourself every morning and call your doctor if your weight goes up more than three pounds.",
    "Please return to the emergency room for fever, chest pain, trouble breathing or any symptom that worries you.",
    "Do not drive while you take pain medicines that make you sleepy.",
    "Drink plenty of fluids and eat a balanced diet with enough protein.",
    "We made some changes to your medicines; a list is attached for you and your pharmacy.",
];

pub(super) const FOLLOW_UP: &[&str] = &[
    "Primary care, Dr. ___, within two weeks, phone ___.",
    "Department: CARDIAC SERVICES, when: ___, building: ___.",
    "Please call ___ to schedule a visit with the surgical clinic.",
    "Laboratory: basic metabolic panel in one week.",
];

pub(super) const ALLERGIES: &[&str] = &[
    "No Known Allergies / Adverse Drug Reactions",
    "Penicillins",
    "Sulfa (Sulfonamide Antibiotics)",
    "lisinopril (cough)",
    "Codeine",
    "Iodine / shellfish derived",
];

pub(super) const SOCIAL: &[&str] = &[
    "Lives with spouse.",
    "Lives alone, daughter nearby.",
    "Retired teacher.",
    "Former smoker, quit years ago.",
    "Never smoked.",
    "Occasional wine with dinner.",
    "Worked in construction.",
    "Lives in an apartment with an elevator.",
];
