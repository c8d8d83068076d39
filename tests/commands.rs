//! Every command line that README, configs/README, help texts, hints and config headers print, run on small stand-ins
//! for data and models.
//!
//! Each goes through a shell in a sandbox that holds the shipped configs, cut down to seconds. One that is neither run
//! nor listed with a reason in [`LEFT_OUT`] fails the test.

mod common;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    process::Command,
};

use candle_core::{DType, Device, Tensor, safetensors};
use common::run;
use serde_json::{Value, json};

/// Commands that are not run here, and why.
const LEFT_OUT: [(&str, &str); 4] = [
    ("clsgen selftest --device cuda", "needs a GPU"),
    (
        "clsgen construct --config configs/clinifact.toml --set construct.teacher=http://localhost:8000/v1 \
        --set construct.teacher_name=judge-model --allow-network",
        "needs a server: tests/remote.rs has one",
    ),
    (
        "clsgen construct --config configs/clinifact.toml --run runs/batch --set construct.teacher= \
        --set construct.teacher_name=tiny --batch-in answers.jsonl",
        "needs what vllm run-batch wrote: tests/remote/batch.rs writes it",
    ),
    ("clsgen train --config DIR/demo.toml", "tests/demo.rs runs it in the directory of a demonstration"),
];

/// Pages whose commands begin with `$ `.
const PAGES: [&str; 2] = ["README.md", "configs/README.md"];

/// What a printed command calls by another name than the sandbox.
const STAND_INS: [(&str, &str); 6] = [
    ("/models/llama-3.1-8b", "llama --run runs/llama"),
    ("epoch-03", "epoch-01"),
    ("model.base=DIR", "model.base=smollm2"),
    ("TRAIN.jsonl", "train.jsonl"),
    ("DEV.jsonl", "dev.jsonl"),
    ("--task out_hospital_mortality_90 --out data/lcd", "--task out_hospital_mortality_90 --out built"),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Lines that are commands, continuations joined, comments cut.
fn commands_of(text: &str, prompt: &str, found: &mut BTreeSet<String>) {
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        let Some(line) = line.strip_prefix(prompt) else { continue };
        let line = line.split(" # ").next().unwrap_or(line).split_whitespace().collect::<Vec<_>>().join(" ");
        if line.starts_with("clsgen ") || line.contains("| clsgen ") {
            found.insert(line);
        }
    }
}

/// `clsgen …` between backticks in the literals of the sources: hints and messages. A bare name of a command only
/// points to it.
fn hints(dir: &Path, found: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            hints(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            // A literal that goes on in the next line is one text.
            let source = std::fs::read_to_string(&path).unwrap();
            let source: String = source.split("\\\n").map(str::trim_start).collect();
            for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let quoted = line.split('`').skip(1).step_by(2).filter(|text| text.starts_with("clsgen "));
                let whole = quoted.filter(|text| text.split(' ').count() > 2 && !text.contains(['{', '…']));
                found.extend(whole.map(str::to_owned));
            }
        }
    }
}

fn all_commands() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for page in PAGES {
        commands_of(&std::fs::read_to_string(repository().join(page)).unwrap(), "$ ", &mut found);
    }
    for command in ["", "demo", "construct", "train", "eval", "predict", "export", "data lcd", "selftest"] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        commands_of(&run(&args).stdout, "  ", &mut found);
    }
    let configs = std::fs::read_dir(repository().join("configs")).unwrap().map(|entry| entry.unwrap().path());
    for path in configs.filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(path).unwrap();
        commands_of(&text, "# ", &mut found);
        // Within a sentence, up to its full stop.
        let header: String = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .map(|line| format!("{} ", line.trim_start_matches("# ")))
            .collect();
        let sentences = header.split(": clsgen ").skip(1).filter_map(|rest| Some(rest.split_once(". ")?.0));
        found.extend(sentences.map(|rest| format!("clsgen {rest}")));
    }
    hints(&repository().join("src"), &mut found);
    found
}

/// Construct before train before what reads a run.
fn stage(command: &str) -> usize {
    let stages = ["--dry-run", "clsgen demo", "clsgen construct", "clsgen train", "clsgen eval"];
    let at = stages.iter().position(|stage| command.contains(stage)).unwrap_or(stages.len() + 1);
    at + usize::from(command.contains("--resume"))
}

fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The files that a page has its reader make: `$ cat > NAME <<'END'` up to the line `END`.
fn here_documents(root: &Path, page: &str) {
    let text = std::fs::read_to_string(repository().join(page)).unwrap();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("$ cat > ").and_then(|rest| rest.strip_suffix(" <<'END'"));
        let Some(name) = name else { continue };
        write(
            root,
            name,
            lines.by_ref().take_while(|line| *line != "END").map(|line| format!("{line}\n")).collect::<String>(),
        );
    }
}

/// The embedded model, said to be made for long windows as the one it stands for.
fn model(root: &Path, name: &str) {
    clsgen::demo::write_model(&root.join(name)).unwrap();
    let config = std::fs::read_to_string(root.join(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["max_position_embeddings"] = json!(131_072);
    write(root, &format!("{name}/config.json"), config.to_string());
}

/// A MIMIC of one note, and the two tasks that have it.
fn mimic(root: &Path) {
    let notes: Value = serde_json::from_str(include_str!("golden/lcd.json")).unwrap();
    let [note_id, id] = ["note_id", "id"].map(|key| notes[notes.as_array().unwrap().len() - 1][key].as_str().unwrap());
    let header = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text";
    let table = format!("{header}\n{note_id},1,2,DS,1,2150-01-01 00:00:00,,Short.\n");
    write(root, "mimic-iv-note-2.2/note/discharge.csv", table);
    write(root, "mimiciv-2.2/hosp/patients.csv", "subject_id,gender,anchor_year_group\n1,F,2008 - 2010\n");
    write(root, "mimiciv-2.2/hosp/admissions.csv", "hadm_id,race,insurance,admission_type\n2,WHITE,Other,URGENT\n");
    for days in [30, 90] {
        let task = format!("out_hospital_mortality_{days}");
        let labels = json!({ id: { "data_type": "train", &task: 1 } });
        write(root, &format!("{task}/labels.json"), labels.to_string());
    }
}

fn sandbox(root: &Path) {
    mimic(root);
    for folder in ["configs", "prompts"] {
        for path in std::fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            let Ok(mut text) = std::fs::read_to_string(&path) else { continue };
            let cuts = [
                ("epochs = 20", "epochs = 1"),
                ("effective_batch = 32", "effective_batch = 4"),
                ("= 7040", "= 1200"),
                ("= 384", "= 16"),
                ("= 8196", "= 1200"),
                ("= 2048", "= 16"),
                ("trials = 5", "trials = 1\non_fail = \"label_only\""),
                ("[train]\n", "[train]\nobjective = \"cls\"\n"),
                ("warmup_steps = 1000", "warmup_steps = 1"),
                ("warmup_steps = 100", "warmup_steps = 1"),
                ("max_output_tokens = 96", "max_output_tokens = 16"),
                ("seeds = 5", "seeds = 1"),
            ];
            let head_alone = text.contains("objective = \"cls\"");
            for (from, to) in
                cuts.iter().filter(|(from, _)| folder == "configs" && !(head_alone && *from == "[train]\n"))
            {
                text = text.replace(from, to);
            }
            let text: String =
                text.lines().filter(|line| !line.starts_with("expect = ")).map(|line| format!("{line}\n")).collect();
            write(root, &format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap()), text);
        }
    }
    PAGES.iter().for_each(|page| here_documents(root, page));
    for name in ["llama", "smollm2", "judge-model", "runs/demo/model"] {
        model(root, name);
    }
    for id in ["meta-llama--Llama-3.1-8B-Instruct", "deepseek-ai--DeepSeek-R1-Distill-Llama-8B"] {
        model(root, &format!("hub/models--{id}/snapshots/abc"));
        write(root, &format!("hub/models--{id}/refs/main"), "abc");
    }
    for (split, csv) in [("train", "train_set"), ("dev", "validation_set"), ("test", "test_set")] {
        let rows = |i: usize| {
            format!("{split}{i},NCT{i}{split},The drug {split} {i} works,It helped {split} {i} patients,{}\n", i % 2)
        };
        write(
            root,
            &format!("data/clinifact/{csv}.csv"),
            format!("index,nctId,claim,article_abstract,label\n{}", (0..8).map(rows).collect::<String>()),
        );
        let note = |i: usize| {
            json!({"id": format!("{split}{i}"), "text": format!("Note {split} {i}: went home."), "data_type": split,
            "out_hospital_mortality_30": i % 2, "out_hospital_mortality_90": i % 2})
        };
        write(
            root,
            &format!("data/lcd/{split}.json"),
            json!({"data": (0..8).map(note).collect::<Vec<_>>()}).to_string(),
        );
        std::fs::create_dir_all(root.join("other/lcd")).unwrap();
        std::fs::copy(root.join(format!("data/lcd/{split}.json")), root.join(format!("other/lcd/{split}.json")))
            .unwrap();
        let three = |i: usize| {
            json!({"id": format!("{split}{i}"), "claim": format!("Drug {split} {i} works"),
                "abstract": format!("Helped {split} {i}"), "label": i % 3, "explanation": "It helped."})
        };
        write(root, &format!("{split}3.jsonl"), (0..9).map(|i| format!("{}\n", three(i))).collect::<String>());
        let article = |i: usize| {
            json!({"id": format!("{split}{i}"), "pmcid": i, "text": format!("Article {split} {i}."),
                "intervention": "a", "comparator": "b", "outcome": "c", "label_code": i as i64 % 3 - 1})
        };
        let articles = (0..9).map(|i| format!("{}\n", article(i))).collect::<String>();
        write(root, &format!("evidence-{split}.jsonl"), articles);
        // Records of CliniFact and predictions at once: a printed command means the one or the other by the same name.
        let line = |i: usize| {
            json!({"id": format!("{split}{i}"), "claim": format!("Drug {split} {i} works"),
                "abstract": format!("Helped {split} {i}"),
            "label": i % 2, "explanation": "It helped.", "probability": (i as f64 + 1.0) / 20.0,
            "verbalized_label": i % 2, "parsable": true})
        };
        write(root, &format!("{split}.jsonl"), (0..8).map(|i| format!("{}\n", line(i))).collect::<String>());
    }
    let note = |i: usize| {
        json!({"id": format!("n{i}"), "text": format!("Note {i}."), "claim": "It works",
        "abstract": format!("Helped {i}")})
    };
    write(root, "notes.jsonl", (0..3).map(|i| format!("{}\n", note(i))).collect::<String>());
    write(root, "notes.csv", "id,note\na,Went home.\nb,Died.\n");
    let words = ["[UNK]", "[SEP]", "drug", "helped"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), json!(id))).collect();
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "post_processor": null, "decoder": null,
        "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel",
        "vocab": vocab, "unk_token": "[UNK]"}});
    write(root, "biomedbert/tokenizer.json", tokenizer.to_string());
    write(root, "biomedbert/config.json", r#"{"model_type": "bert"}"#);
    let table = Tensor::ones((4, 5), DType::F32, &Device::Cpu).unwrap();
    let tensors = HashMap::from([("bert.embeddings.word_embeddings.weight".to_owned(), table)]);
    safetensors::save(&tensors, root.join("biomedbert/model.safetensors")).unwrap();
}

#[test]
fn every_printed_command_line_runs() {
    let root = tempfile::tempdir().unwrap();
    sandbox(root.path());
    let found = all_commands();
    assert!(found.len() > 20, "{found:#?}");
    for part in [
        "construct --config configs/clinifact.toml",
        "train --config configs/lcd90.toml",
        "cat notes.jsonl | clsgen",
        "--split dev",
        "train --config mytask/config.toml",
    ] {
        assert!(found.iter().any(|command| command.contains(part)), "no command has {part}: {found:#?}");
    }
    let left_out = |command: &&String| !LEFT_OUT.iter().any(|(start, _)| command.starts_with(start));
    let with_stand_ins =
        |command: &String| STAND_INS.iter().fold(command.clone(), |command, (from, to)| command.replace(from, to));
    let commands: BTreeSet<String> = found.iter().filter(left_out).map(with_stand_ins).collect();
    let mut commands: Vec<&String> = commands.iter().collect();
    commands.sort_by_key(|command| stage(command));
    let program = Path::new(env!("CARGO_BIN_EXE_clsgen")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let mut failed = Vec::new();
    for command in commands {
        // A whole demonstration takes minutes, tests/demo.rs runs a small one; `runs/demo` here is not its own.
        let demo = command.starts_with("clsgen demo");
        let more = if demo { " --dry-run" } else { "" };
        let folder = if demo { root.path().join("elsewhere") } else { root.path().to_owned() };
        std::fs::create_dir_all(&folder).unwrap();
        let mut shell = Command::new("sh");
        shell
            .current_dir(folder)
            .env("PATH", &path)
            .env("HF_HUB_CACHE", root.path().join("hub"))
            .env_remove("CLSGEN_FAULT");
        let told = common::outcome(shell.args(["-c", &format!("{command}{more}")]));
        if told.code != Some(0) {
            failed.push(format!("{command}{more}\n  exit {:?}: {}", told.code, told.stderr));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
