//! `clsgen selftest`: every op, forward and backward, and whole training passes, against references on the device; exit
//! 1 on a miss.

use serde_json::json;

use super::{Context, args::SelftestArgs, dry_run::DryRunReport, machine, output};
use crate::{
    error::{Error, Result},
    model::{save_tensors, source},
    selftest::{self, CheckResult, ON_A_GPU_ALONE},
    storage,
};

/// Runs the command.
pub fn run(context: &Context, args: &SelftestArgs) -> Result<()> {
    let device = context.device()?;
    // What `auto` stands for on this machine, not the word.
    let name = machine::device_name(&device);
    if args.model.is_some() && !args.only.is_empty() && !args.only.iter().any(|op| op == "training") {
        return Err(Error::usage("--model is a training pass, and --only leaves that out")
            .hint("add training to --only, or leave --model out"));
    }
    if let Some(op) = args.only.iter().find(|op| device.is_cpu() && ON_A_GPU_ALONE.contains(&op.as_str())) {
        return Err(Error::usage(format!("{name} has no check of {op}")).hint("this one is checked on a GPU alone"));
    }
    if context.dry_run {
        let model = args.model.as_ref().map(|model| source::resolve(model, &[], context.allow_network)).transpose()?;
        let plan = DryRunReport::of("selftest").with("device", name).with("only", args.only.as_slice());
        return plan.with("model", json!(model.map(|model| model.path))).print(context);
    }
    if let Some(dir) = &args.write {
        storage::create_dir_all(dir)?;
        return save_tensors(&dir.join("kernels.safetensors"), &selftest::export(&device)?);
    }
    let source = args.model.as_ref().map(|model| source::resolve(model, &[], context.allow_network)).transpose()?;
    let rows = selftest::run(&device, &args.only, source.as_ref())?;
    let missed = rows.iter().filter(|row| !row.ok()).count();
    if context.json {
        output::line(&as_json(&name, &rows).to_string())?;
    } else {
        output::write(table(&rows).as_bytes())?;
    }
    if missed > 0 {
        return Err(Error::run(format!("{missed} of {} checks missed their bound on {name}", rows.len()))
            .hint("do not trust results of this device; try --device cpu, and report the table"));
    }
    tracing::info!("{} checks within their bounds on {name}", rows.len());
    Ok(())
}

fn as_json(device: &str, rows: &[CheckResult]) -> serde_json::Value {
    let finite = |x: f64| x.is_finite().then_some(x);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({ "op": row.op, "pass": row.pass, "shape": row.shape, "error": finite(row.error),
            "bound": row.bound, "ok": row.ok() })
        })
        .collect();
    json!({ "schema": 1, "device": device, "ok": rows.iter().all(|row| row["ok"] == true), "rows": rows })
}

fn table(rows: &[CheckResult]) -> String {
    let mut text = format!("{:<26} {:<20} {:<12} {:>9} {:>9}\n", "op", "pass", "shape", "error", "bound");
    for row in rows {
        let verdict = if row.ok() { "ok" } else { "MISS" };
        let CheckResult { op, pass, shape, error, bound } = row;
        text.push_str(&format!("{op:<26} {pass:<20} {shape:<12} {error:>9.1e} {bound:>9.1e}  {verdict}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_shows_in_the_table_and_in_json() {
        let rows = [
            CheckResult { op: "linear", pass: "forward".into(), shape: "2x3".into(), error: 1e-7, bound: 2e-6 },
            CheckResult { op: "rope", pass: "backward".into(), shape: "5".into(), error: f64::NAN, bound: 1e-5 },
        ];
        let text = table(&rows);
        assert!(
            text.lines().nth(1).unwrap().ends_with("ok")
                && text.contains(" 2x3 ")
                && text.lines().nth(2).unwrap().ends_with("MISS"),
            "{text}"
        );
        let json = as_json("cpu", &rows);
        assert_eq!(
            (&json["ok"], &json["rows"][0]["ok"], &json["rows"][1]["error"]),
            (&false.into(), &true.into(), &serde_json::Value::Null)
        );
    }
}
