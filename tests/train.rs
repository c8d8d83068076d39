//! `clsgen train` end to end on a tiny random model: losses against PyTorch, resume to the bit, refusals, files.

mod common;
#[path = "train/fixture.rs"]
mod fixture;
#[path = "train/kept.rs"]
mod kept;
#[path = "train/pytorch.rs"]
mod pytorch;
#[path = "train/quantized.rs"]
mod quantized;
#[path = "train/resume.rs"]
mod resume;
#[path = "train/tensorboard.rs"]
mod tensorboard;
#[path = "train/told.rs"]
mod told;

use std::process::{Command, Stdio};

use fixture::{Fixture, assert_same, check, golden, stderr};
use resume::stopped_runs_resume;
use serde_json::{Value, json};

/// Every option of the loss's weights, the order and smoothing.
const OPTIONS: [&str; 10] = [
    "--set",
    "train.loss_schedule=linear",
    "--set",
    "train.w_gen_end=0.5",
    "--set",
    "train.w_cls_end=3",
    "--set",
    "train.label_smoothing=0.2",
    "--set",
    "train.curriculum=short_first",
];

#[test]
fn a_scheduled_smoothed_and_ordered_run_resumes_to_the_bit() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &OPTIONS);
    let whole = fixture.result("whole");
    stopped_runs_resume(&fixture, &OPTIONS, &[1, 3, 4]);
    let flags = [&OPTIONS[..], &["--set", "train.save_every_steps=2"]].concat();
    check(fixture.command("killed", &flags).env("CLSGEN_FAULT", "train.step:5").output().unwrap());
    fixture.succeed("killed", &[&OPTIONS[..], &["--resume"]].concat());
    assert_same(&whole, &fixture.result("killed"), "killed");

    // From 1 and 1 at the first of six steps to 0.5 and 3 at the last.
    for (k, step) in fixture.log("whole", "step").iter().enumerate() {
        let t = k as f64 / 5.0;
        let number = |key: &str| step[key].as_f64().unwrap();
        let want = (1.0 - 0.5 * t) * number("loss_gen") + (1.0 + 2.0 * t) * number("loss_cls");
        assert!((number("loss") - want).abs() < 1e-9, "step {}", k + 1);
    }
    // A byte is a token here: notes in the order of their length, those of equal length in another order each epoch.
    let lengths: Vec<usize> = String::from_utf8(fixture.read("train.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().len())
        .collect();
    for epoch in ["epoch-01", "epoch-02"] {
        let order = fixture.json(&format!("whole/checkpoints/{epoch}/trainer.json"))["data_order"].clone();
        let order: Vec<usize> =
            order.as_array().unwrap().iter().map(|record| record.as_u64().unwrap() as usize).collect();
        assert!(order.len() == 11 && order.is_sorted_by_key(|&record| lengths[record]), "{order:?}");
    }
}

#[test]
fn each_option_alone_changes_the_run_and_a_bad_one_is_refused_by_name() {
    let fixture = Fixture::new();
    fixture.succeed("plain", &[]);
    let plain = fixture.result("plain");
    let linear = ["--set", "train.loss_schedule=linear", "--set", "train.w_cls_end=0"];
    for (run, flags) in [("schedule", &linear[..]), ("smoothing", &OPTIONS[6..8]), ("curriculum", &OPTIONS[8..])] {
        fixture.succeed(run, flags);
        assert_ne!(plain, fixture.result(run), "{run}");
    }
    for (key, value) in
        [("loss_schedule", "linear"), ("w_gen_end", "1"), ("label_smoothing", "1.0"), ("curriculum", "long_first")]
    {
        let message = fixture.fail("refused", &["--set", &format!("train.{key}={value}")], 2);
        assert!(message.contains(&format!("train.{key}")) && message.contains("hint:"), "{message}");
    }
}

#[test]
fn balanced_epochs_resume_to_the_bit_and_draw_each_class_alike() {
    let flags = ["--set", "train.sample=balanced"];
    let fixture = Fixture::new();
    fixture.succeed("whole", &flags);
    let whole = fixture.result("whole");
    stopped_runs_resume(&fixture, &flags, &[1, 3, 4]);
    let text = String::from_utf8(fixture.read("train.jsonl")).unwrap();
    let labels: Vec<u64> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["label"].as_u64().unwrap()).collect();
    for epoch in ["epoch-01", "epoch-02"] {
        let order = fixture.json(&format!("whole/checkpoints/{epoch}/trainer.json"))["data_order"].clone();
        let order = order.as_array().unwrap();
        let positives = order.iter().filter(|record| labels[record.as_u64().unwrap() as usize] == 1).count();
        assert_eq!((order.len(), positives), (11, 5), "{order:?}");
    }
    fixture.succeed("plain", &[]);
    assert_ne!(whole, fixture.result("plain"));
}

#[test]
fn class_weights_are_read_from_words_and_lists_and_refused_by_name() {
    let fixture = Fixture::new();
    let weights = |value: &str| vec!["--set".to_owned(), format!("train.class_weights={value}")];
    let run = |run: &str, value: &str| {
        let flags = weights(value);
        fixture.succeed(run, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        fixture.result(run)
    };
    let equal = run("equal", "[1, 1]");
    assert_same(&equal, &run("none", "none"), "weights of one");
    assert_same(&run("list", "[1.0, 4]"), &run("bare", "1.0,4"), "a list without brackets");
    assert_ne!(equal, run("balanced", "balanced"));
    for (flags, named) in [
        (&["--set", "train.class_weights=balance"][..], "train.class_weights"),
        (&["--set", "train.class_weights=[1, 0]"], "holds an item that must be a number above 0"),
        (&["--set", "train.class_weights=[1, 2, 3]"], "holds 3 numbers, task.labels names 2 classes"),
        (&["--set", "train.class_weights=balanced", "--set", "train.sample=balanced"], "twice over"),
        (&["--set", "train.class_weights=balanced", "--set", "train.objective=lm"], "train.objective"),
        (&["--set", "train.sample=balanced", "--set", "train.shuffle=false"], "train.shuffle"),
    ] {
        let message = fixture.fail("refused", flags, 2);
        assert!(message.contains(named) && message.contains("hint:"), "{message}");
    }
}

#[test]
fn threads_do_not_change_a_bit_and_neither_do_activations() {
    let fixture = Fixture::new();
    fixture.succeed("one", &["--threads", "1", "--set", "train.activation_memory=\"keep\""]);
    fixture.succeed("three", &["--threads", "3", "--set", "train.activation_memory=\"recompute\""]);
    assert_same(&fixture.result("one"), &fixture.result("three"), "threads");
}

#[test]
fn batching_does_not_change_a_bit() {
    let fixture = Fixture::new();
    let batches = [
        ("one", ["--set", "train.batch_size=1", "--set", "train.grad_accumulation=4"]),
        ("four", ["--set", "train.batch_size=4", "--set", "train.effective_batch=4"]),
    ];
    // Of all parameters the embedding is the LM head too.
    write_shape(&fixture, true);
    let full = ["--set", "model.base=shape", "--set", "train.init=random", "--set", "train.parameters=full"];
    for (trained, flags) in [("lora", &[][..]), ("full", &full[..])] {
        let [one, four] = batches.map(|(batch, sizes)| {
            let run = format!("{trained}-{batch}");
            fixture.succeed(&run, &[flags, &sizes].concat());
            fixture.result(&run)
        });
        assert_same(&one, &four, trained);
    }
}

/// `shape/`: a model without weights, whose LM head is its embedding or not.
fn write_shape(fixture: &Fixture, tied: bool) {
    for name in ["generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        fixture.write(&format!("shape/{name}"), std::fs::read(golden("base").join(name)).unwrap());
    }
    let config = std::fs::read(golden("base").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["tie_word_embeddings"] = json!(tied);
    fixture.write("shape/config.json", config.to_string());
}

#[test]
fn a_toy_task_is_learned() {
    let fixture = Fixture::new();
    fixture.write("dev.jsonl", fixture::notes(11, false));
    let flags = ["--set", "train.epochs=25", "--set", "train.learning_rate=1e-2", "--set", "lora.dropout=0.0"];
    fixture.succeed("run", &flags);
    let steps = fixture.log("run", "step");
    let loss = |step: &Value| step["loss"].as_f64().unwrap();
    assert!(loss(&steps[steps.len() - 1]) < 0.5 * loss(&steps[0]), "{} {}", steps[0], steps[steps.len() - 1]);
    let dev = |epoch: usize| fixture.json(&format!("run/checkpoints/epoch-{epoch:02}/dev.metrics.json"));
    assert_eq!(dev(25)["auroc"]["value"], json!(1.0));
    let loss_cls = |epoch| dev(epoch)["loss_cls"].as_f64().unwrap();
    assert!(loss_cls(25) < 0.05 && loss_cls(25) < loss_cls(1), "{} {}", loss_cls(1), loss_cls(25));
}

#[test]
fn every_file_of_the_contract_is_there() {
    let fixture = Fixture::new();
    let output = fixture.succeed("run", &[]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!("run/{}", fixture.json("run/best.json")["path"].as_str().unwrap())
    );
    let names = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "cls_head.safetensors",
        "clsgen.json",
        "dev.metrics.json",
        "dev.predictions.jsonl",
        "manifest.json",
        "trainer.json",
        "trainer.safetensors",
    ];
    for epoch in ["epoch-01", "epoch-02"] {
        let mut found: Vec<String> = std::fs::read_dir(fixture.path(&format!("run/checkpoints/{epoch}")))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
        let predictions = fixture.read(&format!("run/checkpoints/{epoch}/dev.predictions.jsonl"));
        assert_eq!(predictions.iter().filter(|&&b| b == b'\n').count(), 6);
    }
    let keys: Vec<String> = fixture.log("run", "step")[0].as_object().unwrap().keys().cloned().collect();
    let contract =
        "type step epoch loss loss_gen loss_cls lr grad_norm records tokens target_tokens tokens_per_s seconds mfu";
    assert_eq!(keys.join(" "), contract);
    assert!(fixture.log("run", "step").iter().all(|line| line["mfu"].as_f64().is_some_and(|mfu| mfu > 0.0)));
    assert_eq!(fixture.log("run", "epoch").len(), 2);
    for file in ["run.json", "train.json", "metrics.jsonl"] {
        assert!(!String::from_utf8(fixture.read(&format!("run/{file}"))).unwrap().contains(fixture::SECRET), "{file}");
    }
}

#[test]
fn without_dev_the_latest_epoch_is_the_best_known() {
    let fixture = Fixture::new();
    let config = String::from_utf8(fixture.read("config.toml")).unwrap();
    fixture.write("config.toml", config.replace("dev = \"dev.jsonl\"", ""));
    fixture.succeed("run", &[]);
    assert_eq!(fixture.json("run/best.json"), json!({"epoch": 2, "path": "checkpoints/epoch-02", "score": null}));
    assert!(!fixture.path("run/checkpoints/epoch-01/dev.metrics.json").exists());
    assert_eq!(fixture.log("run", "epoch")[0]["dev"], Value::Null);
}

#[test]
fn each_objective_trains_its_own_loss() {
    let fixture = Fixture::new();
    fixture.succeed("cls", &["--set", "train.objective=\"cls\""]);
    for step in fixture.log("cls", "step") {
        assert_eq!((&step["loss_gen"], &step["target_tokens"]), (&Value::Null, &json!(0)));
        assert_eq!(step["loss"], step["loss_cls"]);
    }
    fixture.succeed("lm", &["--set", "train.objective=\"lm\""]);
    let steps = fixture.log("lm", "step");
    assert!(steps.iter().all(|step| step["loss"] == step["loss_gen"] && step["loss_cls"].is_null()));
    // Three of eleven records have no explanation: eight are left, two steps an epoch.
    assert_eq!(steps.len(), 4);
}

/// Its AUROC is that of random weights: chance would choose the epoch.
#[test]
fn of_a_head_that_is_not_trained_the_loss_chooses() {
    let fixture = Fixture::new();
    fixture.write("dev.jsonl", fixture::notes(6, true));
    let lm = ["--set", "train.objective=lm", "--set", "train.epochs=4", "--set", "train.learning_rate=1e-2"];
    fixture.succeed("lm", &lm);
    let least = |run: &str| {
        let epochs = fixture.log(run, "epoch");
        let loss = |epoch: usize| epochs[epoch - 1]["dev"]["loss_gen"].as_f64().unwrap();
        let epoch = (1..=4).min_by(|&a, &b| loss(a).total_cmp(&loss(b))).unwrap();
        json!({"epoch": epoch, "path": format!("checkpoints/epoch-{epoch:02}"), "score": null})
    };
    assert_eq!(fixture.json("lm/best.json"), least("lm"));
    // Dev's loss has the first step's weights: none at all here.
    let from_nothing = ["train.loss_schedule=linear", "train.w_gen=0", "train.w_gen_end=1"];
    fixture.succeed("linear", &[&lm[..], &from_nothing.map(|set| ["--set", set]).concat()].concat());
    assert_eq!(fixture.json("linear/best.json"), least("linear"));
    assert_ne!(fixture.json("linear/best.json")["epoch"], 1);
    let told = |run: &str| {
        let predict = ["predict", "--model", run, "--input", "dev.jsonl", "--output", &format!("{run}.jsonl")];
        let told =
            common::outcome(common::clsgen().current_dir(fixture.path(".")).args(predict).arg("--no-explanation"));
        assert_eq!(told.code, Some(0), "{told:?}");
        told.stderr.contains("trained no classification head")
    };
    assert!(told("lm"));
    // A head that the run before trained is one still; where that was killed as it replaced its checkpoint, too.
    fixture.succeed("joint", &["--set", "train.max_steps=1"]);
    let place = |name: &str| fixture.path(&format!("joint/checkpoints/{name}"));
    let from = ["--set", "train.init_from=joint/checkpoints/epoch-01", "--set", "train.max_steps=1"];
    fixture.succeed("then", &[&lm[..], &from].concat());
    assert!(!told("joint") && !told("then"));
    std::fs::rename(place("epoch-01"), place(".epoch-01.aside-4294967294.0123abcd")).unwrap();
    fixture.succeed("aside", &[&lm[..], &from].concat());
    let start = |run: &str| fixture.json(&format!("{run}/train.json"))["train.init_from"].clone();
    assert!(start("aside").is_string() && start("aside") == start("then"));

    // Without an explanation in dev there is no loss to go by.
    fixture.write("dev.jsonl", fixture::notes(6, false));
    fixture.succeed("unexplained", &lm);
    assert_eq!(fixture.json("unexplained/best.json")["epoch"], 4);
}

#[test]
fn joint_without_any_explanation_is_refused() {
    let fixture = Fixture::new();
    fixture.write("train.jsonl", fixture::notes(11, false));
    let message = fixture.fail("run", &[], 2);
    assert!(message.contains("explanation") && message.contains("hint:"), "{message}");
    fixture.fail("run", &["--set", "train.objective=\"lm\""], 2);
    fixture.succeed("run", &["--set", "train.objective=\"cls\""]);
}

#[test]
fn another_config_or_other_data_is_refused_naming_what_differs() {
    let fixture = Fixture::new();
    fixture.succeed("run", &["--set", "train.max_steps=1"]);
    let message = fixture.fail("run", &["--resume", "--set", "lora.rank=8", "--set", "train.w_gen=2.0"], 2);
    assert!(message.contains("lora.rank") && message.contains("train.w_gen"), "{message}");
    assert!(fixture.fail("run", &[], 2).contains("--resume"));
    fixture.write("train.jsonl", fixture::notes(12, true));
    assert!(fixture.fail("run", &["--resume"], 2).contains("data.train"));
}

#[test]
fn a_checkpoint_of_another_shape_is_no_start() {
    let fixture = Fixture::new();
    let init = format!("train.init_from={:?}", golden("init"));
    let message = fixture.fail("run", &["--set", &init, "--set", "lora.rank=8"], 4);
    assert!(message.contains("rank 4"), "{message}");
    assert_eq!(fixture.fail("run", &["--set", &init, "--set", "lora.rank=8", "--dry-run"], 4), message);
    fixture.fail("run", &["--set", &init, "--set", "train.parameters=full", "--dry-run"], 2);
    fixture.fail("run", &["--set", "train.init_from=absent", "--dry-run", "--resume"], 4);
    assert!(fixture.fail("run", &["--set", &init, "--set", "head.hidden=8"], 4).contains("head"));
    let told = fixture.fail("run", &["--set", &init, "--set", r#"task.labels=["b", "a"]"#], 2);
    assert!(told.contains("its labels are [") && told.contains(r#"task.labels is ["b", "a"]"#), "{told}");
}

#[test]
fn a_locked_run_is_refused_naming_the_holder() {
    let fixture = Fixture::new();
    let _lock = clsgen::storage::RunLock::acquire(&fixture.path("run")).unwrap();
    assert!(fixture.fail("run", &[], 2).contains(&std::process::id().to_string()));
}

#[test]
fn constructed_records_are_used_only_where_they_belong() {
    let fixture = Fixture::new();
    fixture.write("run/construct/train.jsonl", fixture::notes(8, true));
    fixture.write("run/construct/stats.json", json!({"splits": {"train": {"source": {"blake3": "0000"}}}}).to_string());
    assert!(fixture.fail("run", &[], 2).contains("other records"));
    let hash = clsgen::data::source_hash(&fixture.path("train.jsonl")).unwrap();
    fixture.write("run/construct/stats.json", json!({"splits": {"train": {"source": {"blake3": hash}}}}).to_string());
    fixture.succeed("run", &[]);
    assert_eq!(fixture.log("run", "epoch")[0]["records"], json!(8));
}

#[test]
fn full_training_writes_a_model_folder_that_resumes() {
    let fixture = Fixture::new();
    let full = ["--set", "train.parameters=\"full\"", "--set", "train.learning_rate=1e-3"];
    fixture.succeed("whole", &full);
    for name in ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "cls_head.safetensors"]
    {
        assert!(fixture.path("whole/checkpoints/epoch-01").join(name).exists(), "{name}");
    }
    assert!(!fixture.path("whole/checkpoints/epoch-01/adapter_model.safetensors").exists());
    fixture.succeed("stopped", &[&full[..], &["--set", "train.max_steps=2"]].concat());
    fixture.succeed("stopped", &[&full[..], &["--resume"]].concat());
    assert_same(&fixture.result("whole"), &fixture.result("stopped"), "full");
}

#[test]
fn a_model_is_pretrained_from_a_shape_and_a_tokenizer_alone() {
    let fixture = Fixture::new();
    write_shape(&fixture, false);
    let flags = [
        "model.base=shape",
        "train.init=random",
        "train.parameters=full",
        "train.objective=lm",
        "train.prompt_loss_weight=0.5",
    ];
    let flags: Vec<&str> = flags.into_iter().flat_map(|set| ["--set", set]).collect();
    fixture.succeed("run", &flags);
    assert!(fixture.path("run/checkpoints/epoch-01/model.safetensors").is_file());
    let losses: Vec<f64> = fixture.log("run", "epoch").iter().map(|line| line["loss_gen"].as_f64().unwrap()).collect();
    assert!(losses.len() > 1 && losses[losses.len() - 1] < losses[0], "{losses:?}");

    // Stopped within the first epoch, it goes on to the same bytes.
    fixture.succeed("stopped", &[&flags[..], &["--set", "train.max_steps=1"]].concat());
    fixture.succeed("stopped", &[&flags[..], &["--resume"]].concat());
    assert_same(&fixture.result("stopped"), &fixture.result("run"), "resumed");
    // Another seed is another model.
    fixture.succeed("other", &[&flags[..], &["--seed", "43"]].concat());
    assert_ne!(fixture.result("other"), fixture.result("run"));

    let adapters = ["--set", "model.base=shape", "--set", "train.init=random"];
    assert!(fixture.fail("lora", &adapters, 2).contains("it needs train.parameters = \"full\""));
    let missing = [&flags[2..], &["--set", "model.base=nowhere"]].concat();
    assert!(fixture.fail("missing", &missing, 4).contains("model.base nowhere: no directory with a config.json"));
}
