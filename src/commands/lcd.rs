//! `clsgen data lcd`: the LCD benchmark out of MIMIC-IV-Note; two builds compared.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Context, args::LcdArgs, dry_run::DryRunReport, folder, output};
use crate::{
    data::mimic::{self, Agreement, Build, Built, ReadBuild},
    error::{Error, Result},
    foreign, progress,
    storage::{self, AtomicDir},
};

/// Runs the command.
pub fn run(context: &Context, args: &LcdArgs) -> Result<()> {
    let by_year_group = args.split_by == "year-group";
    let note = args.mimic_note.as_deref();
    if by_year_group && args.mimic_hosp.is_none() {
        return Err(Error::usage("--split-by year-group goes by anchor_year_group of the table patients")
            .hint("name the folder of MIMIC-IV that has it by --mimic-hosp"));
    }
    let build =
        note.map(|note| Build::find(note, args.mimic_hosp.as_deref(), &args.task, by_year_group)).transpose()?;
    let other = args.check.as_deref().map(|other| check_other(args, other)).transpose()?;
    let Some(build) = build else { return check_alone(context, args, other.as_ref()) };
    // Where --out is a symbolic link, the folder that it leads to is replaced, not the link.
    let out = args.out.canonicalize().unwrap_or_else(|_| args.out.clone());
    build.inputs().iter().for_each(|path| storage::protect(path));
    claim(&out, args.overwrite)?;
    if context.dry_run {
        return dry_run(context, args, &build);
    }
    let bar = progress::bar(
        context.quiet,
        usize::try_from(build.bytes()).ok(),
        0,
        "{wide_bar} {bytes}/{total_bytes}, {eta} left",
    );
    let dir = AtomicDir::create(&out)?;
    let built = mimic::build(&build, &dir, &bar);
    bar.finish_and_clear();
    let built = built?;
    warn(&built);
    // Somebody may have come meanwhile.
    claim(&out, args.overwrite)?;
    dir.commit(false)?;
    let agreement = other.map(|other| Ok::<_, Error>(ReadBuild::read(&out)?.agreement(&other))).transpose()?;
    tell(context, Some(&built), agreement.as_ref())?;
    finish(args, agreement)
}

/// The build to compare with, read before any work: it must be another than the one that is made or named.
fn check_other(args: &LcdArgs, other: &Path) -> Result<ReadBuild> {
    if args.out.canonicalize().is_ok_and(|out| other.canonicalize().is_ok_and(|other| out == other)) {
        return Err(Error::usage(format!("--check {}: is --out itself", other.display()))
            .hint("name another build; one that is to be replaced must be copied first"));
    }
    ReadBuild::read(other)
}

/// `--check` without a build.
fn check_alone(context: &Context, args: &LcdArgs, other: Option<&ReadBuild>) -> Result<()> {
    let Some(other) = other else { return Ok(()) };
    if context.dry_run {
        return DryRunReport::of("data lcd")
            .with("build", json!(args.out))
            .with("compared with", json!(args.check))
            .print(context);
    }
    let agreement = ReadBuild::read(&args.out)?.agreement(other);
    tell(context, None, Some(&agreement))?;
    finish(args, Some(agreement))
}

/// Refuses what is no build, and what is one unless it may be replaced.
fn claim(out: &Path, overwrite: bool) -> Result<()> {
    let names = folder::names(out, "--out")?;
    if let Some(other) = names.iter().find(|name| !mimic::FILES.contains(&name.as_str())) {
        return Err(Error::usage(format!("{} is there already, and it is no build: {other}", out.display()))
            .hint("move it away, or choose another --out; no option replaces it"));
    }
    if !names.is_empty() && !names.contains("metadata.json") {
        return Err(Error::usage(format!("{} is there already, and it is no build: no metadata.json", out.display()))
            .hint("move it away, or choose another --out; no option replaces it"));
    }
    if !names.is_empty() && !overwrite {
        return Err(Error::usage(format!("{} is there already", out.display()))
            .hint("--overwrite replaces it; --check OTHER compares it with another build"));
    }
    Ok(())
}

fn dry_run(context: &Context, args: &LcdArgs, build: &Build) -> Result<()> {
    let (tasks, notes) = build.check()?;
    DryRunReport::of("data lcd")
        .with("inputs", json!(build.inputs()))
        .with("tasks", tasks)
        .with("notes with labels", notes)
        .with("splits by", args.split_by.as_str())
        .with("output", json!(args.out))
        .with("compared with", json!(args.check))
        .print(context)
}

/// Whatever makes this another build than the benchmark's.
fn warn(built: &Built) {
    for path in &built.unnamed {
        tracing::warn!(
            "{}: its SHA-1 is none that the benchmark names: this is NOT the file that the benchmark was made of \
             (metadata.json records it)",
            path.display()
        );
    }
    if built.missing > 0 {
        tracing::warn!(
            "{} notes have a label and are not in discharge.csv: the build is NOT the whole benchmark",
            built.missing
        );
    }
    if built.unknown > 0 {
        tracing::warn!(
            "{} notes are of patients or admissions that --mimic-hosp lacks: their subgroup columns are null",
            built.unknown
        );
    }
}

fn tell(context: &Context, built: Option<&Built>, agreement: Option<&Agreement>) -> Result<()> {
    if context.json {
        let mut document = Map::new();
        if let Some(built) = built {
            document.insert("build".into(), built.record.clone());
        }
        if let Some(agreement) = agreement {
            document.insert("check".into(), agreement.to_json());
        }
        return output::line(&Value::Object(document).to_string());
    }
    let mut text = String::new();
    if let Some(built) = built {
        text.push_str(&format!("{:<8} {:>9} {:>9}\n", "split", "labelled", "written"));
        for (split, labelled, written) in &built.splits {
            let labelled = labelled.map_or_else(|| "–".to_owned(), |labelled| labelled.to_string());
            text.push_str(&format!("{split:<8} {labelled:>9} {written:>9}\n"));
        }
        let is = if built.is_the_benchmark() { "counts and inputs are" } else { "counts or inputs are not" };
        text.push_str(&format!("{is} the benchmark's\n"));
    }
    if let Some(agreement) = agreement {
        let [ours, theirs] = &agreement.alone;
        let alone = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => names.iter().map(|name| foreign::name(name)).collect::<Vec<_>>().join(", "),
        };
        text.push_str(&format!(
            "records {} and {}, the same order: {}; fields of one alone, not compared: {}; of the other: {}\n",
            agreement.counts.iter().map(|counts| counts[0]).sum::<usize>(),
            agreement.counts.iter().map(|counts| counts[1]).sum::<usize>(),
            if agreement.same_order { "yes" } else { "no" },
            alone(ours),
            alone(theirs),
        ));
    }
    output::write(text.as_bytes())
}

/// Exit 1 where the builds differ.
fn finish(args: &LcdArgs, agreement: Option<Agreement>) -> Result<()> {
    let Some((agreement, other)) = agreement.filter(|agreement| !agreement.agree()).zip(args.check.as_ref()) else {
        return Ok(());
    };
    let fields: Vec<String> = agreement
        .differing
        .iter()
        .map(|(field, count)| format!("{count} in {}", crate::foreign::name(field)))
        .collect();
    let fields = if fields.is_empty() { String::new() } else { format!("; records differ: {}", fields.join(", ")) };
    let [missing_here, missing_there] = agreement.missing;
    Err(Error::run(format!(
        "{} and {} differ: {missing_here} records are not in the first, {missing_there} not in the second{fields}\n  \
         {}",
        args.out.display(),
        other.display(),
        agreement.listed.join("\n  ")
    ))
    .hint("an id hashes note_id and text: other notes, or another MIMIC-IV-Note, have other ids"))
}
