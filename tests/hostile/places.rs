//! What lies where a file should: a pipe that nobody writes to, a device without end, a directory.

use crate::bench::Bench;

#[test]
fn pipes_devices_and_directories_are_no_files() {
    let mut bench = Bench::new("pipes, devices and directories");
    bench.fixture.write("base/special_tokens_map.json", "{}");
    bench.fixture.write("base/generation_config.json", "{}");
    for name in [
        "base/config.json",
        "base/tokenizer.json",
        "base/tokenizer_config.json",
        "base/special_tokens_map.json",
        "base/generation_config.json",
        "base/chat_template.jinja",
        "base/model.safetensors",
        "run/checkpoints/epoch-01/clsgen.json",
        "run/checkpoints/epoch-01/adapter_config.json",
        "run/checkpoints/epoch-01/adapter_model.safetensors",
        "run/checkpoints/epoch-01/cls_head.safetensors",
        "run/checkpoints/epoch-01/manifest.json",
    ] {
        let whole = bench.fixture.read(name);
        let path = bench.path(name);
        let file = name.rsplit('/').next().unwrap();
        let _ = std::fs::remove_file(&path);
        std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        bench.predict(&format!("{file} is a pipe")).refused(4, &[]);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        bench.predict(&format!("{file} is a device")).refused(4, &[]);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        bench.predict(&format!("{file} is a directory")).refused(4, &[]);
        std::fs::remove_dir(&path).unwrap();
        if !whole.is_empty() {
            bench.fixture.write(name, &whole);
        }
    }
    bench.predict("as it was").accepted();
}

#[test]
fn records_configs_and_prompts_have_an_end() {
    let mut bench = Bench::new("inputs");
    std::fs::remove_file(bench.path("in.jsonl")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", bench.path("in.jsonl")).unwrap();
    bench.predict("records from a device").refused(3, &["in.jsonl", "is a device"]);
    std::process::Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap();
    bench.run("a config that is a pipe", &["train", "--config", "pipe"]).refused(2, &["pipe", "a named pipe"]);
    let train = |data: &str, prompt: &str| {
        format!(
            "[task]\nname = \"t\"\nlabels = [\"0:a\", \"1:b\"]\nprompt = \"{prompt}\"\n\
             [data]\nformat = \"jsonl\"\ntrain = \"{data}\"\n[model]\nbase = \"base\"\n"
        )
    };
    bench.fixture.write("prompt.toml", "user = \"{document}\"\nprefix = \"R: \"\nformat = \"plain\"\n");
    bench.fixture.write("prompt.cfg", train("in.jsonl", "pipe"));
    bench.run("a prompt that is a pipe", &["train", "--config", "prompt.cfg"]).refused(2, &["pipe", "a named pipe"]);
    bench.fixture.write("notes.jsonl", format!("{{\"id\": \"a\", \"text\": {:?}}}\n", crate::bench::NOTE));
    bench.fixture.write("prompt.cfg", train("notes.jsonl", "notes.jsonl"));
    bench.run("records as a prompt", &["train", "--config", "prompt.cfg"]).refused(2, &["notes.jsonl:1: is not TOML"]);
    bench.fixture.write("data.cfg", train("pipe", "prompt.toml"));
    bench.run("a split that is a pipe", &["train", "--config", "data.cfg"]).refused(3, &["pipe", "a named pipe"]);
    bench.fixture.write("data.cfg", train("/dev/zero", "prompt.toml"));
    bench.run("a split that is a device", &["train", "--config", "data.cfg"]).refused(3, &["/dev/zero", "a device"]);
    // A pipe that somebody writes to is an input of predict, as it always was.
    std::fs::remove_file(bench.path("in.jsonl")).unwrap();
    std::process::Command::new("mkfifo").arg(bench.path("in.jsonl")).status().unwrap();
    let path = bench.path("in.jsonl");
    let writer = std::thread::spawn(move || std::fs::write(path, "{\"id\": \"a\", \"text\": \"fever\"}\n").unwrap());
    bench.predict("records from a pipe").accepted();
    writer.join().unwrap();
    assert_eq!(bench.fixture.lines("out.jsonl").len(), 1);
}

/// An evaluation's own files, where somebody has put a pipe: never waited for, and never taken for what it scored.
#[test]
fn pipes_in_an_evaluation_are_not_waited_for() {
    let mut bench = Bench::new("pipes in an evaluation");
    let line = |i: usize| format!("{{\"id\":\"n{i}\",\"label\":{},\"probability\":0.{i}}}\n", i % 2);
    bench.fixture.write("scored.jsonl", (1..9).map(line).collect::<String>());
    let eval = ["eval", "--predictions", "scored.jsonl", "--dev-predictions", "scored.jsonl", "--run", "scored"];
    bench.run("an evaluation", &eval).accepted();
    let folder = "scored/eval/predictions";
    for name in ["settings.json", "thresholds.json", "calibration.json"] {
        let path = bench.path(&format!("{folder}/{name}"));
        let whole = bench.fixture.read(&format!("{folder}/{name}"));
        std::fs::remove_file(&path).unwrap();
        std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        bench.run(&format!("{name} is a pipe"), &eval).refused(2, &[name]);
        std::fs::remove_file(&path).unwrap();
        bench.fixture.write(&format!("{folder}/{name}"), whole);
    }
    bench.run("as it was", &eval).accepted();
}
