//! Files in places that others can write to: nothing is written through a link, nothing is readable by others, nobody
//! else's directory is used without a word.

use std::os::unix::fs::symlink;

use super::work::{Work, give, is_root};
use crate::common::{self, assert_fails};

/// Every command that writes, and the directory it writes to.
const COMMANDS: [(&str, &[&str]); 5] = [
    ("construct", &["construct", "--config", "demo.toml", "--run", "run", "--set", "construct.splits=[\"dev\"]"]),
    ("train", &["train", "--config", "demo.toml", "--run", "run"]),
    ("eval", &["eval", "--config", "demo.toml", "--run", "run", "--set", "eval.judge=model", "--baselines", "label"]),
    ("predict", &["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "run/out.jsonl"]),
    ("files", &["eval", "--predictions", "run/out.jsonl", "--run", "run"]),
];

const EVERYBODY: [&str; 3] = ["sh", "-c", "umask 0; exec \"$0\" \"$@\""];

#[test]
fn under_umask_0_every_file_is_the_users_alone_and_so_is_one_that_was_open_to_all() {
    let work = Work::new(8);
    let mut again = 0;
    for (name, command) in COMMANDS {
        let told = common::outcome(&mut work.under(&EVERYBODY, command));
        assert_eq!(told.code, Some(0), "{name}: {told:?}");
        for path in work.files("run") {
            let wanted = if work.path(&path).is_dir() { 0o700 } else { 0o600 };
            assert_eq!(work.mode(&path), wanted, "{name}: {path}");
        }
    }
    // What an older version, a copy or an editor left open to all.
    let demo = ["demo", "--out", "demo", "--notes", "40"];
    for (name, command) in [COMMANDS[3], COMMANDS[2], ("demo", &demo)] {
        let dir = if name == "demo" { "demo" } else { "run" };
        let overwrite: &[&str] = if name == "demo" { &[] } else { &["--overwrite"] };
        for more in [&[][..], overwrite] {
            let before = work.files(dir).into_iter().filter(|path| work.path(path).is_file());
            let before: Vec<_> = before.map(|path| (work.changed(&path), path)).collect();
            before.iter().for_each(|(_, path)| work.set_mode(path, 0o666));
            let told = common::outcome(&mut work.under(&EVERYBODY, &[command, more].concat()));
            assert_eq!(told.code, Some(0), "{name}: {told:?}");
            for (changed, path) in before.iter().filter(|(_, path)| work.path(path).is_file()) {
                let written = work.changed(path) != *changed;
                again += usize::from(written);
                assert!(!written || work.mode(path) == 0o600, "{name} {more:?}: {path} is {:o}", work.mode(path));
            }
        }
    }
    assert!(again > 10, "only {again} files were written again");
}

#[test]
fn an_output_that_is_continued_is_closed_to_others() {
    let work = Work::trained(8);
    let predict = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "out.jsonl"];
    let lines = || work.text("out.jsonl").lines().map(str::to_owned).collect::<Vec<_>>();
    let mut half = work.command(&predict);
    assert!(!half.env("CLSGEN_FAULT", "log.append:4").status().unwrap().success());
    let before = lines();
    work.set_mode("out.jsonl", 0o666);
    work.set_mode("out.jsonl.meta.json", 0o666);
    let told = work.run(&predict);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(before.len() == 3 && lines().len() == 8 && lines()[..3] == before);
    assert_eq!((work.mode("out.jsonl"), work.mode("out.jsonl.meta.json")), (0o600, 0o600));
}

/// At the name of every file that a command writes lies a link to somebody's file: each is refused, or replaced.
#[test]
fn no_command_writes_through_a_planted_link() {
    let mut planted_at = 0;
    for (turn, (name, command)) in COMMANDS.iter().enumerate() {
        let work = Work::new(8);
        for (_, before) in &COMMANDS[..turn] {
            assert_eq!(work.run(before).code, Some(0));
        }
        let there = work.files("run");
        assert_eq!(work.run(command).code, Some(0));
        let new: Vec<String> = work.files("run").into_iter().filter(|path| !there.contains(path)).collect();
        let new = new.into_iter().filter(|path| work.path(path).is_file() && !path.contains("tfevents"));
        let new: Vec<String> = new.chain(["run/.lock".into(), "run/run.json".into()]).collect();
        let work = Work::new(8);
        for (_, before) in &COMMANDS[..turn] {
            assert_eq!(work.run(before).code, Some(0));
        }
        let victim = |k: usize| format!("victims/{k}");
        let mut planted: Vec<(usize, String)> = Vec::new();
        for (k, path) in new.into_iter().enumerate() {
            work.write(&victim(k), "mine\n");
            std::fs::create_dir_all(work.path(&path).parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(work.path(&path));
            symlink(work.path(&victim(k)), work.path(&path)).unwrap();
            planted.push((k, path));
        }
        let all = planted.len();
        planted_at += all;
        loop {
            let told = work.run(command);
            for k in 0..all {
                assert_eq!((work.text(&victim(k)).as_str(), work.mode(&victim(k))), ("mine\n", 0o644), "{name}");
            }
            if told.code == Some(0) {
                break;
            }
            // A refusal names the link, or the folder that holds it: then somebody takes it away.
            assert!(told.stderr.contains("hint: ") && told.code != Some(1), "{name}: {told:?}");
            let named = |path: &str| {
                let mut rests = told.stderr.match_indices(path).map(|(at, _)| &told.stderr[at + path.len()..]);
                rests.any(|rest| rest.starts_with([' ', ':', ')', ',']))
            };
            let is_named = |path: &str| {
                std::path::Path::new(path)
                    .ancestors()
                    .any(|at| at.components().count() > 1 && named(&at.display().to_string()))
            };
            let (gone, kept): (Vec<_>, Vec<_>) = planted.into_iter().partition(|(_, path)| is_named(path));
            assert!(!gone.is_empty(), "{name}: no link is named: {told:?}");
            for (_, path) in &gone {
                // The command may have put a file of its own in its place before it was refused.
                let _ = std::fs::remove_file(work.path(path));
                // And the folders that were made for it.
                let folders = std::path::Path::new(path).ancestors().skip(1);
                folders.take_while(|folder| std::fs::remove_dir(work.path(folder.to_str().unwrap())).is_ok()).count();
            }
            planted = kept;
        }
    }
    common::say(&format!("planted links: {planted_at}, 0 written through"));
}

#[test]
fn a_temporary_has_a_name_that_nobody_can_foresee() {
    let work = Work::trained(4);
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let predict = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "out.jsonl"];
        let mut command = work.command(&predict);
        let child = command.env("CLSGEN_FAULT", "file.write").spawn().unwrap();
        let marker = format!(".out.jsonl.meta.json.tmp-{}.", child.id());
        assert!(!common::end_of(child).status.success());
        let left = work.files("").into_iter().find(|path| path.starts_with(&marker)).expect("a temporary");
        assert_eq!(work.mode(&left), 0o600);
        names.insert(left[marker.len()..].to_owned());
    }
    assert!(names.len() == 3 && names.iter().all(|name| name.len() == 17), "{names:?}");
}

/// The lock of a run directory is no link, no FIFO and no file of another's.
#[test]
fn a_lock_is_a_file_of_ours() {
    let work = Work::trained(4);
    work.write("victim", "mine\n");
    std::fs::remove_file(work.path("run/.lock")).unwrap();
    symlink(work.path("victim"), work.path("run/.lock")).unwrap();
    let eval = ["eval", "--config", "demo.toml", "--run", "run"];
    assert_fails(&work.run(&eval), 2, &["run/.lock is there already, and it is a symbolic link", "hint: "]);
    assert_eq!(work.text("victim"), "mine\n");
    std::fs::remove_file(work.path("run/.lock")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(work.path("run/.lock")).status().unwrap().success());
    assert_fails(&work.run(&eval), 2, &["run/.lock is there already, and it is no file", "hint: "]);
}

#[test]
fn the_users_own_link_at_an_output_is_followed_and_anothers_is_not() {
    let work = Work::trained(4);
    let predict = ["predict", "--model", "run", "--input", "data/test.jsonl", "--output", "link.jsonl"];
    symlink(work.path("real.jsonl"), work.path("link.jsonl")).unwrap();
    assert_eq!(work.run(&predict).code, Some(0));
    assert_eq!((common::lines(&work.path("real.jsonl")), work.mode("real.jsonl")), (4, 0o600));
    // --overwrite replaces what the link leads to, not the link.
    work.write("real.jsonl", "stale\n");
    assert_eq!(work.run(&[&predict[..], &["--overwrite"]].concat()).code, Some(0));
    assert!(work.path("link.jsonl").is_symlink());
    assert_eq!((common::lines(&work.path("real.jsonl")), work.mode("real.jsonl")), (4, 0o600));
    if !is_root() {
        return;
    }
    work.give_to(1234);
    give(&work.path("link.jsonl"), 1235);
    std::fs::remove_file(work.path("real.jsonl")).unwrap();
    // Another's stays as it is, and nothing is written to where it leads.
    for more in [&[][..], &["--overwrite"]] {
        let told = work.run_as(1234, &[&predict[..], more].concat());
        assert_fails(&told, 2, &["link.jsonl is a link of another user (uid 1235)", "hint: "]);
        assert!(work.path("link.jsonl").is_symlink() && !work.path("real.jsonl").exists());
    }
}

#[test]
fn another_users_run_directory_is_refused_and_root_is_told() {
    if !is_root() {
        return;
    }
    let work = Work::trained(4);
    let eval = ["eval", "--config", "demo.toml", "--run", "run"];
    work.give_to(1234);
    let own = work.run_as(1234, &eval);
    assert_eq!(own.code, Some(0), "{own:?}");
    assert!(!own.stderr.contains("warning: run"), "{own:?}");

    // Open to all, so that only whose it is stands in the way.
    let own = |name: &str, user: u32| std::os::unix::fs::lchown(work.path(name), Some(user), Some(user)).unwrap();
    own("run", 1235);
    work.set_mode("run", 0o777);
    let told = work.run_as(1234, &eval);
    assert_fails(&told, 2, &["run is of another user (uid 1235), not yours (uid 1234)", "hint: "]);
    std::fs::rename(work.path("run"), work.path("mine")).unwrap();
    own("mine", 1234);
    symlink(work.path("mine"), work.path("run")).unwrap();
    own("run", 1235);
    assert_fails(&work.run_as(1234, &eval), 2, &["run is a link of another user (uid 1235)", "hint: "]);
    std::fs::remove_file(work.path("run")).unwrap();
    std::fs::rename(work.path("mine"), work.path("run")).unwrap();

    // Its own, or root's, to which everybody may write: a word, and on it goes. For root, so is everybody's.
    for owner in [1234, 0] {
        own("run", owner);
        let told = work.run_as(1234, &eval);
        assert_fails(&told, 0, &["warning: everybody may write to run", "chmod o-w run"]);
    }
    own("run", 1234);
    work.set_mode("run", 0o700);
    let mut root = work.command(&eval);
    assert_fails(&common::outcome(&mut root), 0, &["warning: run belongs to user 1234, not to root"]);
    let told = common::outcome(root.env("SUDO_UID", "1234"));
    assert!(told.code == Some(0) && !told.stderr.contains("belongs to"), "{told:?}");
}
