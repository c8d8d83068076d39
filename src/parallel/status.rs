//! What a rank says of itself at a meeting: nothing where it is well, its error, or that it has come to its end.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// The word of a rank that has nothing more to do.
pub(super) const CLOSING: &[u8] = b"closing";

/// An error on its way to another rank.
#[derive(Serialize, Deserialize, PartialEq)]
struct Told {
    /// Its exit code; 0 where it is only that of another rank which this one gave way to.
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Told {
    /// Which of several errors is the job's: the least of these.
    fn severity(&self) -> u8 {
        match self.code {
            0 => 2,
            code if code > 128 => 1,
            _ => 0,
        }
    }

    fn into_error(self) -> Error {
        let kind = match self.code {
            2 => Kind::Usage,
            3 => Kind::Data,
            4 => Kind::Model,
            5 => Kind::Resources,
            code if code > 128 => Kind::Signal(i32::from(code - 128)),
            _ => Kind::Run,
        };
        let error = Error::new(kind, self.message);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The word of a rank that failed, or that only gives way to one that did.
pub(super) fn failed(error: &Error, yields_to_other_error: bool) -> Vec<u8> {
    let code = if yields_to_other_error { 0 } else { error.exit_code() };
    let told = Told { code, message: error.to_string(), hint: error.hint_text().map(str::to_owned) };
    // Strings and a number always have a JSON form.
    serde_json::to_vec(&told).unwrap_or_else(|_| b"{}".to_vec())
}

/// The error that all ranks have after these words, one a rank: the first, and a signal only where nothing worse came.
/// Where all failed alike it says no more than one process would. Ranks that close are well.
pub(super) fn first_error(statuses: &[Vec<u8>], hosts: &[&str]) -> Option<Error> {
    let read = |bytes: &Vec<u8>| {
        let unreadable = || Told { code: 1, message: "it failed".into(), hint: None };
        let failed = !bytes.is_empty() && bytes != CLOSING;
        failed.then(|| serde_json::from_slice(bytes).unwrap_or_else(|_| unreadable()))
    };
    let told: Vec<Option<Told>> = statuses.iter().map(read).collect();
    let alike = told.iter().all(|one| *one == told[0]);
    let errors = told.iter().enumerate().filter_map(|(rank, one)| Some((one.as_ref()?.severity(), rank)));
    let (_, rank) = errors.min()?;
    let error = told.into_iter().nth(rank)??.into_error();
    Some(if alike { error } else { error.context(format!("rank {rank} on {}", hosts[rank])) })
}

/// The error of ranks that still work where another has closed: they would wait for it in vain.
pub(super) fn closed_early(statuses: &[Vec<u8>], hosts: &[&str]) -> Option<Error> {
    let rank = statuses.iter().position(|status| status == CLOSING)?;
    Some(Error::run(format!("rank {rank} on {} has ended its work, other ranks have not", hosts[rank])))
}
