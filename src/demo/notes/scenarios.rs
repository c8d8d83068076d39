//! Why patients come: the story, the course and the drugs of each kind of admission.

/// A kind of admission.
pub(super) struct Scenario {
    pub diagnosis: &'static str,
    pub service: &'static str,
    /// Planned admissions carry their own log-odds.
    pub elective: bool,
    pub complaints: &'static [&'static str],
    pub procedure: &'static str,
    pub stories: &'static [&'static str],
    pub courses: &'static [&'static str],
    pub medicines: &'static [&'static str],
}

/// Log-odds of a planned admission.
pub(super) const ELECTIVE_WEIGHT: f64 = -1.2;

/// Every kind of admission.
pub(super) const SCENARIOS: [Scenario; 14] = [
    Scenario {
        diagnosis: "community acquired pneumonia",
        service: "MEDICINE",
        elective: false,
        complaints: &["Cough and fever", "Shortness of breath", "Dyspnea, fever"],
        procedure: "None",
        stories: &[
            "{He} reports {days} days of productive cough, fevers to 102 and pleuritic chest pain.",
            "{He} developed worsening dyspnea over {days} days after a viral illness; chest x-ray showed a right \
            lower lobe infiltrate.",
        ],
        courses: &[
            "# Pneumonia: treated with ceftriaxone and azithromycin, then narrowed to oral levofloxacin.",
            "# PNA: infiltrate on CXR, started on vancomycin and cefepime, sputum grew oral flora only.",
        ],
        medicines: &["Levofloxacin 750 mg PO DAILY", "Guaifenesin 10 mL PO Q6H:PRN cough"],
    },
    Scenario {
        diagnosis: "acute on chronic heart failure",
        service: "CARDIOLOGY",
        elective: false,
        complaints: &["Leg swelling", "Shortness of breath", "Weight gain and orthopnea"],
        procedure: "None",
        stories: &[
            "{He} noted a {days} lb weight gain with orthopnea and leg edema after missing diuretic doses.",
            "Dyspnea on exertion progressed over {days} days; BNP was elevated and exam showed volume overload.",
        ],
        courses: &[
            "# Volume overload: diuresed with IV furosemide, {days} liters negative, changed to oral torsemide.",
            "# Decompensated heart failure: furosemide drip, daily weights, salt restriction teaching.",
        ],
        medicines: &["Torsemide 40 mg PO DAILY", "Metoprolol Succinate XL 50 mg PO DAILY"],
    },
    Scenario {
        diagnosis: "upper gastrointestinal bleeding",
        service: "MEDICINE",
        elective: false,
        complaints: &["Melena", "Black stools", "Hematemesis"],
        procedure: "EGD",
        stories: &[
            "{He} presented with {days} days of black stools and lightheadedness while taking ibuprofen.",
            "{He} vomited coffee ground material at home and was found to have a hematocrit drop.",
        ],
        courses: &[
            "# GI bleed: EGD showed a duodenal ulcer, clipped; transfused 2 units, PPI started.",
            "# UGIB: endoscopy with erosive gastritis and no active bleeding; H. pylori serology pending.",
        ],
        medicines: &["Pantoprazole 40 mg PO Q12H", "Ferrous Sulfate 325 mg PO DAILY"],
    },
    Scenario {
        diagnosis: "COPD exacerbation",
        service: "MEDICINE",
        elective: false,
        complaints: &["Wheezing", "Dyspnea", "Shortness of breath"],
        procedure: "None",
        stories: &[
            "A former smoker with COPD, {he} had {days} days of wheeze and increased sputum.",
            "{He} ran out of inhalers and became short of breath with minimal activity.",
        ],
        courses: &[
            "# COPD: prednisone burst, nebulizers and azithromycin with improvement.",
            "# COPD exacerbation: needed BiPAP overnight in the ED, then nasal cannula, steroid taper.",
        ],
        medicines: &["PredniSONE 40 mg PO DAILY taper", "Tiotropium Bromide 1 CAP IH DAILY"],
    },
    Scenario {
        diagnosis: "urinary tract infection",
        service: "MEDICINE",
        elective: false,
        complaints: &["Altered mental status", "Dysuria", "Fever"],
        procedure: "None",
        stories: &[
            "{He} was brought in with {days} days of confusion and foul smelling urine.",
            "Flank pain, dysuria and rigors began {days} days before admission.",
        ],
        courses: &[
            "# UTI: urine grew pan-sensitive E. coli, treated with ceftriaxone then cefpodoxime.",
            "# Pyelonephritis: IV antibiotics for three days, fever curve improved.",
        ],
        medicines: &["Cefpodoxime Proxetil 200 mg PO Q12H", "Acetaminophen 650 mg PO Q6H:PRN pain"],
    },
    Scenario {
        diagnosis: "hip fracture",
        service: "ORTHOPAEDICS",
        elective: false,
        complaints: &["Fall", "Left hip pain", "Right hip pain after a fall"],
        procedure: "Open reduction internal fixation of the hip",
        stories: &[
            "{He} tripped on a rug and could not bear weight; films showed an intertrochanteric fracture.",
            "A mechanical fall from standing led to hip pain; there was no head strike or loss of consciousness.",
        ],
        courses: &[
            "# Hip fracture: taken to the OR for fixation, weight bearing as tolerated after.",
            "# Fracture: repaired without complication, enoxaparin for prophylaxis.",
        ],
        medicines: &["Enoxaparin Sodium 40 mg SC DAILY", "OxyCODONE 2.5 mg PO Q4H:PRN pain"],
    },
    Scenario {
        diagnosis: "ischemic stroke",
        service: "NEUROLOGY",
        elective: false,
        complaints: &["Right sided weakness", "Slurred speech", "Facial droop"],
        procedure: "None",
        stories: &[
            "{He} was found with facial droop and arm weakness, last seen well {days} hours before.",
            "Sudden aphasia began at breakfast; CT showed no hemorrhage.",
        ],
        courses: &[
            "# Stroke: MRI with an MCA territory infarct, outside the tPA window, aspirin and statin started.",
            "# CVA: telemetry showed atrial fibrillation, anticoagulation was started on day 5.",
        ],
        medicines: &["Atorvastatin 80 mg PO QPM", "Apixaban 5 mg PO BID"],
    },
    Scenario {
        diagnosis: "acute pancreatitis",
        service: "MEDICINE",
        elective: false,
        complaints: &["Abdominal pain", "Epigastric pain, vomiting"],
        procedure: "None",
        stories: &[
            "Epigastric pain radiating to the back began {days} days ago with vomiting; lipase was 2400.",
            "{He} had sudden abdominal pain after a fatty meal, with gallstones on ultrasound.",
        ],
        courses: &[
            "# Pancreatitis: bowel rest, fluids and pain control, diet advanced on day 3.",
            "# Gallstone pancreatitis: improved with fluids; outpatient cholecystectomy planned.",
        ],
        medicines: &["OxyCODONE 5 mg PO Q6H:PRN pain", "Ondansetron 4 mg PO Q8H:PRN nausea"],
    },
    Scenario {
        diagnosis: "lower extremity cellulitis",
        service: "MEDICINE",
        elective: false,
        complaints: &["Leg redness", "Leg pain and swelling"],
        procedure: "None",
        stories: &[
            "Redness spread over the left shin for {days} days despite oral cephalexin.",
            "{He} scratched {his} leg gardening and then had fever and spreading erythema.",
        ],
        courses: &[
            "# Cellulitis: vancomycin with receding margins, changed to doxycycline.",
            "# Skin infection: ultrasound without abscess or clot, IV cefazolin then oral.",
        ],
        medicines: &["Doxycycline Hyclate 100 mg PO BID", "Miconazole Powder 2% TP TID"],
    },
    Scenario {
        diagnosis: "pulmonary embolism",
        service: "MEDICINE",
        elective: false,
        complaints: &["Chest pain", "Dyspnea", "Syncope"],
        procedure: "None",
        stories: &[
            "Sudden pleuritic chest pain after a long car ride; CTA showed segmental emboli.",
            "{He} had {days} days of calf pain and then dyspnea, with a right sided PE on CT.",
        ],
        courses: &[
            "# PE: heparin drip, then apixaban; echo without right heart strain.",
            "# Pulmonary embolus: normal troponin, low risk score, anticoagulated for six months.",
        ],
        medicines: &["Apixaban 10 mg PO BID", "Acetaminophen 1000 mg PO Q8H"],
    },
    Scenario {
        diagnosis: "atrial fibrillation with rapid ventricular response",
        service: "CARDIOLOGY",
        elective: false,
        complaints: &["Palpitations", "Lightheadedness"],
        procedure: "None",
        stories: &[
            "Palpitations woke {him} at night; the heart rate was 150 and irregular in the ED.",
            "{He} felt lightheaded for {days} days and was in atrial fibrillation at clinic.",
        ],
        courses: &[
            "# AF with RVR: rate controlled with diltiazem then metoprolol.",
            "# Atrial fibrillation: converted on amiodarone, anticoagulation discussed.",
        ],
        medicines: &["Metoprolol Tartrate 25 mg PO BID", "Rivaroxaban 20 mg PO DINNER"],
    },
    Scenario {
        diagnosis: "osteoarthritis of the knee",
        service: "ORTHOPAEDICS",
        elective: true,
        complaints: &["Knee pain", "Knee osteoarthritis"],
        procedure: "Total knee arthroplasty",
        stories: &[
            "{He} has end stage knee arthritis and presents for planned joint replacement.",
            "After failed injections and therapy {he} elected total knee replacement.",
        ],
        courses: &[
            "# Knee replacement: uncomplicated surgery, physical therapy from day one.",
            "# TKA: pain controlled with oral drugs, incision clean and dry.",
        ],
        medicines: &["Aspirin 81 mg PO BID", "Docusate Sodium 100 mg PO BID"],
    },
    Scenario {
        diagnosis: "ventral hernia",
        service: "SURGERY",
        elective: true,
        complaints: &["Abdominal bulge", "Hernia"],
        procedure: "Laparoscopic ventral hernia repair with mesh",
        stories: &[
            "{He} was admitted for scheduled repair of an enlarging ventral hernia.",
            "A reducible hernia had grown over the year and {he} came for elective repair.",
        ],
        courses: &[
            "# Hernia repair: tolerated surgery well, diet advanced, voiding.",
            "# Post operative course: mild ileus that resolved by day 3.",
        ],
        medicines: &["Senna 8.6 mg PO BID", "Acetaminophen 650 mg PO Q6H"],
    },
    Scenario {
        diagnosis: "coronary artery disease",
        service: "CARDIAC SURGERY",
        elective: true,
        complaints: &["Exertional chest pain", "Abnormal stress test"],
        procedure: "Coronary artery bypass grafting",
        stories: &[
            "A positive stress test led to catheterization with three vessel disease and planned surgery.",
            "{He} has stable angina and was referred for elective bypass.",
        ],
        courses: &[
            "# CABG: chest tubes out on day 2, wires out on day 3, gently diuresed.",
            "# Post bypass: brief atrial fibrillation, converted with amiodarone.",
        ],
        medicines: &["Aspirin EC 81 mg PO DAILY", "Metoprolol Tartrate 37.5 mg PO TID"],
    },
];
