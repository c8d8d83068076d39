//! A run that is stopped or killed, at any point, and goes on: to the bit what it would have been.

use super::*;

/// Runs of these flags, stopped after some steps, that end as `whole` did.
pub fn stopped_runs_resume(fixture: &Fixture, flags: &[&str], stops: &[usize]) {
    let whole = fixture.result("whole");
    for stop in stops {
        let run = format!("stopped-{stop}");
        fixture.succeed(&run, &[flags, &["--set", &format!("train.max_steps={stop}")]].concat());
        fixture.succeed(&run, &[flags, &["--resume"]].concat());
        assert_same(&whole, &fixture.result(&run), &run);
    }
}

#[test]
fn a_run_stopped_after_any_step_resumes_to_the_bit() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &[]);
    let whole = fixture.result("whole");
    assert_eq!(fixture.log("whole", "step").len(), 6);
    for stop in 1..=6usize {
        let run = format!("stopped-{stop}");
        fixture.succeed(&run, &["--set", &format!("train.max_steps={stop}")]);
        let epoch = format!("{run}/checkpoints/epoch-{:02}", stop.div_ceil(3));
        assert_eq!(fixture.json(&format!("{epoch}/trainer.json"))["complete"], json!(stop % 3 == 0));
        assert_eq!(fixture.json(&format!("{epoch}/clsgen.json"))["complete"], json!(stop % 3 == 0));
        assert!(fixture.json(&format!("{run}/best.json"))["path"].is_string());
        fixture.succeed(&run, &["--resume"]);
        assert_same(&whole, &fixture.result(&run), &run);
    }
}

#[test]
fn a_run_killed_after_any_step_resumes_to_the_bit() {
    let fixture = Fixture::new();
    fixture.succeed("whole", &[]);
    let whole = fixture.result("whole");
    for kill in 1..=6 {
        let run = format!("killed-{kill}");
        let flags = ["--set", "train.save_every_steps=2"];
        let output =
            check(fixture.command(&run, &flags).env("CLSGEN_FAULT", format!("train.step:{kill}")).output().unwrap());
        assert!(output.status.code().is_none(), "{}", stderr(&output));
        fixture.succeed(&run, &["--resume"]);
        assert_same(&whole, &fixture.result(&run), &run);
    }
    common::say("kill sweep: 6 points, train.step after each step");
}

/// It is not needed any more, and may be there again at the next resume.
#[test]
fn a_start_that_is_gone_for_a_while_stays_recorded() {
    let fixture = Fixture::new();
    common::copy(&golden("init"), &fixture.path("init"));
    let train = |more: &[&str]| {
        fixture.succeed("run", &[&["--set", "train.init_from=init"][..], more].concat());
        fixture.json("run/train.json")["train.init_from"].clone()
    };
    let recorded = train(&["--set", "train.max_steps=1"]);
    assert!(recorded.is_string(), "{recorded}");
    std::fs::rename(fixture.path("init"), fixture.path("away")).unwrap();
    assert_eq!(train(&["--resume", "--set", "train.max_steps=2"]), recorded);
    std::fs::rename(fixture.path("away"), fixture.path("init")).unwrap();
    assert_eq!(train(&["--resume", "--set", "train.max_steps=3"]), recorded);
}

/// `last` holds the step at which `max_steps` ends the run before dev is scored: a kill between the two.
#[test]
fn a_run_that_max_steps_ends_is_scored_though_it_was_killed() {
    let fixture = Fixture::new();
    let flags = ["--set", "train.max_steps=2"];
    fixture.succeed("whole", &flags);
    let output = check(fixture.command("killed", &flags).env("CLSGEN_FAULT", "dir.done:1").output().unwrap());
    assert!(output.status.code().is_none() && !fixture.path("killed/best.json").exists(), "{}", stderr(&output));
    for _ in 0..2 {
        fixture.succeed("killed", &[&flags[..], &["--resume"]].concat());
        let best = fixture.json("killed/best.json");
        assert_eq!(best, fixture.json("whole/best.json"));
        let metrics = format!("{}/dev.metrics.json", best["path"].as_str().unwrap());
        assert_eq!(fixture.json(&format!("killed/{metrics}")), fixture.json(&format!("whole/{metrics}")));
        assert_eq!(fixture.log("killed", "epoch").len(), 1);
    }
    // The same where the epoch has a checkpoint already, of fewer steps.
    fixture.succeed("further", &["--set", "train.max_steps=1"]);
    let on = [&flags[..], &["--resume"]].concat();
    let output = check(fixture.command("further", &on).env("CLSGEN_FAULT", "dir.done:1").output().unwrap());
    assert!(output.status.code().is_none(), "{}", stderr(&output));
    fixture.succeed("further", &on);
    assert_same(&fixture.result("whole"), &fixture.result("further"), "further");
    assert_eq!(fixture.json("further/checkpoints/epoch-01/trainer.json")["step"], 2);
}
