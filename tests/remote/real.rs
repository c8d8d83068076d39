//! Real servers, started by `tests/remote/run`: SmolLM2-135M-Instruct in f32 by llama.cpp's own server, which takes
//! token ids, and by `llama_cpp.server`, which takes text alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use candle_core::{DType, Device};
use clsgen::{
    config::{self, Truncate},
    context::Context,
    data::Record,
    demo::notes::{NoteSettings, Notes},
    generate::{Budget, Completed, Engine, Request, Sampling, remote::Remote},
    labels::Labels,
    model::{Model, source},
    parallel::Collective,
    prompt::{PromptTemplate, Prompter, TextTokenizer},
    remote::{Named, PromptTransport, RemoteModel, Server},
};

use super::common;

const TEXTS: u64 = 20;
const NEW_TOKENS: usize = 48;

/// The addresses of the servers, ids first; without them a line says what starts them.
fn servers() -> Option<[String; 2]> {
    let named = ["CLSGEN_SERVER_OF_IDS", "CLSGEN_SERVER_OF_TEXT"].map(|name| std::env::var(name).ok());
    match named {
        [Some(ids), Some(text)] => Some([ids, text]),
        _ => {
            common::say("real servers: tests/remote/run starts them");
            None
        }
    }
}

fn context() -> Context {
    Context {
        config: config::Config::default(),
        sets: Vec::new(),
        config_path: None,
        run_dir: PathBuf::from("nowhere"),
        device: "cpu".into(),
        seed: 42,
        shard: None,
        json: false,
        quiet: true,
        verbose: 0,
        dry_run: false,
        allow_network: true,
        threads: 2,
        ranks: Collective::one(),
        started: SystemTime::now(),
    }
}

fn connect(url: &str, folder: &Path) -> Arc<Server> {
    let mut context = context();
    context.config.remote.concurrency = 2;
    let named = Named { key: "construct.teacher", url, name: Some("smollm2"), tokenizer: folder.to_str() };
    let model = RemoteModel::find(&context, named, None).unwrap();
    Server::connect(&context, model, 1024 + 256).unwrap()
}

#[test]
fn greedy_texts_of_real_servers_are_those_of_our_engine() {
    let (Some(servers), Some(folder)) = (servers(), common::smollm2()) else { return };
    let model = Model::base(&source::resolve(folder.to_str().unwrap(), &[], false).unwrap(), DType::F32, &Device::Cpu);
    let model = model.unwrap();
    let tokenizer = Arc::new(TextTokenizer::load(&folder).unwrap());
    let template = PromptTemplate::load(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("prompts/lcd30.toml")).unwrap();
    let labels = Labels::two("0:alive", "1:death");
    let prompter = Prompter::new(template, tokenizer.clone(), labels, 1024, 256, Truncate::Tail).unwrap();
    let notes = Notes::new(5, NoteSettings { words: 150, prevalence: 0.4, typos: 0.0 });
    let records: Vec<Record> = notes.range(0..TEXTS).into_iter().map(|note| note.record).collect();
    let request = |prompt| Request {
        key: 0,
        prompt,
        samples: 1,
        max_new_tokens: NEW_TOKENS,
        sampling: Sampling::greedy(),
        want_probability: false,
        continuations: Vec::new(),
    };
    let mut ours = Vec::new();
    let requests = records.iter().map(|record| Ok(request(prompter.prompt(record)?.ids)));
    let budget = Budget::beside(&model.llama, 1024, None);
    let text = |completed: Completed| completed.generations[0].text.clone();
    let engine = Engine::new(&model, &tokenizer, budget);
    engine
        .run_in_order(requests, &mut |completed| {
            ours.push(text(completed));
            Ok(())
        })
        .unwrap();
    assert!(ours.iter().all(|text| !text.is_empty()));

    for (url, ids) in servers.iter().zip([true, false]) {
        let server = connect(url, &folder);
        assert_eq!(server.transport() == PromptTransport::Ids, ids, "{:?}", server.transport());
        assert_ne!(server.transport(), PromptTransport::Chat);
        let remote = Remote::new(server);
        let mut theirs = Vec::new();
        let requests = records.iter().map(|record| Ok(request(remote.prompt(&prompter, record)?.ids)));
        remote
            .run_in_order(requests, &mut |completed| {
                theirs.push(text(completed));
                Ok(())
            })
            .unwrap();
        let equal = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
        let begun = |(a, b): (&String, &String)| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        let common_bytes: usize = ours.iter().zip(&theirs).map(begun).sum();
        let bytes: usize = ours.iter().map(String::len).sum();
        common::say(&format!(
            "{:?}: {equal} of {TEXTS} greedy texts of {NEW_TOKENS} tokens equal ours, {:.1} % of their bytes come \
            before the first difference",
            remote.server().transport(),
            100.0 * common_bytes as f64 / bytes as f64
        ));
        assert!(equal as u64 * 10 >= TEXTS * 8, "{equal} of {TEXTS}");
    }
}

/// llama.cpp's server gives none; `llama_cpp.server` gives each token of a model without BOS its neighbour's.
#[test]
fn log_probabilities_of_real_servers_are_not_believed_untried() {
    let (Some(servers), Some(folder)) = (servers(), common::smollm2()) else { return };
    assert_eq!(servers.map(|url| connect(&url, &folder).scores().unwrap()), [false; 2]);
}

#[test]
fn construct_by_real_servers() {
    let (Some(servers), Some(folder)) = (servers(), common::smollm2()) else { return };
    let work = super::Work::new();
    let mut outputs = Vec::new();
    for (url, run) in servers.iter().zip(["ids", "text"]) {
        let mut command = work.command(run, url);
        let base = format!("model.base={}", folder.display());
        // The greedy trial of each record: the same prompts, byte for byte, whichever way they went.
        for set in [
            &base,
            "construct.teacher_name=smollm2",
            "construct.trials=1",
            "construct.temperature=0",
            "construct.max_output_tokens=64",
            "construct.on_fail=label_only",
            "remote.concurrency=2",
        ] {
            command.args(["--set", set]);
        }
        let outcome = common::outcome(&mut command);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("/chat/completions"), "{}", outcome.stderr);
        let dropped = work.lines(run, "dropped.jsonl");
        let ours = ["unparsable", "truncated", "wrong_label", "too_short"];
        assert!(dropped.iter().all(|line| ours.contains(&line["trials"][0].as_str().unwrap())), "{dropped:?}");
        outputs.push(work.lines(run, "train.jsonl").len());
    }
    assert_eq!(outputs, [super::RECORDS as usize; 2]);
}
