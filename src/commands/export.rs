//! `clsgen export`: a checkpoint's base and adapter as one Hugging Face folder, the head beside it.

use std::path::Path;

use serde_json::json;

use super::{Context, args::ExportArgs, dry_run::DryRunReport, folder, output};
use crate::{
    config::Quantize,
    device,
    error::{Error, Result},
    generate::scoring,
    model::{checkpoint, merge, source, tensor_spec},
    progress,
    storage::{self, AtomicDir},
};

/// Room for what lies beside the weights: tokenizer, head.
const BESIDE: u64 = 64 << 20;

/// Runs the command.
pub fn run(context: &Context, args: &ExportArgs) -> Result<()> {
    let dir = scoring::checkpoint_dir(&args.model)?;
    // A link's own name is not replaced, but what it leads to.
    let out = args.merged.canonicalize().unwrap_or_else(|_| args.merged.clone());
    storage::protect(&dir);
    claim(&out, args.overwrite)?;
    let opened = storage::read_unchanged(&dir, |dir| open(context, dir))?;
    let merge::Opened { info, source: model, config, .. } = &opened;
    source::protect(&model.path);
    let bytes = merge::bytes(config);
    device::check_disk(&out, bytes + BESIDE)?;
    let plan = DryRunReport::of("export").with("checkpoint", json!(dir)).with("base model", json!(model.path));
    let plan = plan.with("output", json!(args.merged)).with("bytes of weights", bytes);
    if context.dry_run {
        return plan.print(context);
    }
    if info.quantize != Quantize::None {
        tracing::warn!(
            "the checkpoint was trained over a base quantised as {}: it is merged into the base as it was before, so \
             that logits differ from the checkpoint's by what was rounded there",
            json!(info.quantize).as_str().unwrap_or_default()
        );
    }
    let tensors = tensor_spec::shapes(config).len();
    let bar = progress::bar(context.quiet, Some(tensors), 0, "{wide_bar} {pos}/{len} tensors, {eta} left");
    let merged = AtomicDir::create(&out)?;
    merge::write(&merged, &opened, merge::SHARD, || bar.inc(1))?;
    bar.finish_and_clear();
    // Somebody may have come meanwhile.
    claim(&out, args.overwrite)?;
    merged.commit(true)?;
    if context.json {
        return output::line(&json!({ "merged": args.merged, "tensors": tensors, "bytes": bytes }).to_string());
    }
    output::line(&args.merged.display().to_string())
}

/// All that the checkpoint brings, verified.
fn open(context: &Context, dir: &Path) -> Result<merge::Opened> {
    let info = checkpoint::read_info(dir)?;
    if !storage::verify_manifest(dir)? {
        tracing::warn!("{} has no {}: its files cannot be verified", dir.display(), storage::MANIFEST);
    }
    let source = scoring::locate(context, dir, &info)?;
    merge::Opened::open(dir, info, source)
}

/// Refuses what is no merged folder, and what is one unless it may be replaced and holds nothing else.
fn claim(out: &Path, overwrite: bool) -> Result<()> {
    let names = folder::names(out, "--merged")?;
    if names.is_empty() {
        return Ok(());
    }
    if !merge::is_one(&names) {
        return Err(Error::usage(format!("{} is there already, and export did not make it", out.display()))
            .hint("choose another --merged; no option replaces it"));
    }
    if !overwrite {
        return Err(Error::usage(format!("{} is there already", out.display())).hint("--overwrite replaces it"));
    }
    folder::refuse_unlisted(out, "export", "--merged")
}
