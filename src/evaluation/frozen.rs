//! `RUN/eval/thresholds.json`: thresholds tuned on dev, frozen before test labels are read.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::folder::{Folder, is_foreign};
use crate::{
    error::{Error, Result},
    foreign,
    labels::Class,
    metrics::{
        AnySample, Sample,
        operating::{self, Target},
        threshold::{Costs, Thresholds},
    },
    storage,
};

/// A file by name and content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its path.
    pub path: String,
    /// BLAKE3 of its content.
    pub blake3: String,
}

/// Thresholds and what they were chosen on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// Version of this file's shape.
    pub schema: u32,
    /// The checkpoint whose dev predictions these are; null for a prediction file.
    pub checkpoint: Option<Named>,
    /// The dev predictions.
    pub dev: Named,
    /// Records of dev.
    pub n: usize,
    /// Of more than two classes, the number of the one that thresholds are of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub positive: Option<Class>,
    /// What errors cost.
    pub costs: Costs,
    /// The thresholds; null where dev allows none.
    pub thresholds: Thresholds,
    /// Those of the operating points (`eval.sensitivities`, `eval.specificities`, `eval.alert_rates`).
    #[serde(default)]
    pub operating_points: Vec<operating::Frozen>,
}

impl Frozen {
    /// Tunes every threshold on `dev`; of more than two classes on the `positive` one against the rest, and none
    /// without it.
    pub fn tune(
        (dev, positive): (&AnySample, Option<Class>),
        (costs, targets): (Costs, &[Target]),
        checkpoint: Option<Named>,
        path: &Path,
        hash: &str,
    ) -> Self {
        let tuned =
            |dev: &Sample| (Thresholds::tune(dev, costs), targets.iter().map(|target| target.freeze(dev)).collect());
        let (thresholds, operating_points) = match (dev, positive) {
            (AnySample::Two(dev), _) => tuned(dev),
            (AnySample::More(dev), Some(class)) => tuned(&dev.one_vs_rest(class.into())),
            (AnySample::More(_), None) => (Thresholds::default(), Vec::new()),
        };
        let dev_file = Named { path: path.display().to_string(), blake3: hash.to_owned() };
        // Of two classes it is class 1, and goes without saying.
        let positive = positive.filter(|_| matches!(dev, AnySample::More(_)));
        Self { schema: 1, checkpoint, dev: dev_file, n: dev.len(), positive, costs, thresholds, operating_points }
    }

    /// The file's bytes; written before test is read.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        storage::json(self)
    }
}

/// Whether `theirs` is `ours` as a clsgen made it that knew no operating points: nothing that it says is lost.
fn is_older(theirs: &[u8], ours: &[u8]) -> bool {
    let read = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    let without = read(ours).and_then(|mut ours| ours.as_object_mut()?.remove("operating_points").map(|_| ours));
    without.is_some() && without == read(theirs)
}

/// Replaces a file that the checkpoint's splits share, where it is the same or `overwrite` says so: `bytes` of none
/// take it away.
pub fn write(folder: &Folder, name: &str, bytes: Option<&[u8]>, dry_run: bool) -> Result<()> {
    let path = folder.frozen.join(name);
    let theirs = foreign::read(&path, foreign::LARGE).ok();
    let shared = folder.frozen != folder.out;
    if dry_run || theirs.as_deref() == bytes {
        return Ok(());
    }
    if is_foreign(&path) && !folder.overwrite {
        return Err(Error::usage(format!("{} was not made by clsgen", path.display()))
            .hint("move it away, or --overwrite replaces it"));
    }
    let older = theirs.as_deref().zip(bytes).is_some_and(|(theirs, ours)| is_older(theirs, ours));
    if shared && theirs.is_some() && !older && !folder.overwrite {
        let message = format!(
            "{} is not what this checkpoint's dev predictions give under these settings: another checkpoint or other \
            settings made it, \
             or it was changed",
            path.display()
        );
        return Err(Error::usage(message).hint(
            "--overwrite makes it again; other splits' folders keep the values they were measured with until \
                scored again",
        ));
    }
    match bytes {
        Some(bytes) => {
            storage::create_dir_all(&folder.frozen)?;
            storage::write_file_atomic(&path, bytes)
        }
        None => storage::remove_file(&path),
    }
}
