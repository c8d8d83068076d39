//! Which part of the records a process takes, where several processes share out an input without talking to each other
//! (`--shard`). Layer 0.
//!
//! Parts are contiguous and in input order, so that their outputs, one after another, are the output of one process.

use std::{fmt, ops::Range, str::FromStr};

use crate::error::{Error, Result};

/// Part `part` (from 1) of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    part: usize,
    of: usize,
}

/// What `--shard` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardArgument {
    /// This part.
    Part(Shard),
    /// The part that this task of a Slurm job array takes.
    Auto,
}

impl Shard {
    /// Part `part` of `of`; `None` where there is no such part.
    pub fn new(part: usize, of: usize) -> Option<Self> {
        (1..=of).contains(&part).then_some(Self { part, of })
    }

    /// The first number: which part, from 1.
    pub fn part(self) -> usize {
        self.part
    }

    /// The second number: of how many.
    pub fn of(self) -> usize {
        self.of
    }

    /// This part of `n` records: the parts of all processes are the whole, and none is longer than another by more than
    /// a record.
    pub fn range(self, n: usize) -> Range<usize> {
        // At most n, so that it fits; the product need not.
        let bound = |part: usize| (part as u128 * n as u128 / self.of as u128) as usize;
        bound(self.part - 1)..bound(self.part)
    }

    /// The part as file names have it: `part-2-of-8`.
    pub fn file_name(self) -> String {
        format!("part-{}-of-{}", self.part, self.of)
    }

    /// The part that a file name of this form names.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let (part, of) = name.strip_prefix("part-")?.split_once("-of-")?;
        // Written in one way only: no leading zero, no sign.
        Self::new(part.parse().ok()?, of.parse().ok()?).filter(|shard| shard.file_name() == name)
    }

    /// The part of this task of a Slurm job array, from what `variable` gives of its environment.
    pub fn of_array_task(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &str| {
            let value = variable(name).ok_or_else(|| {
                outside(format!("--shard auto: {name} is not set: this is no task of a Slurm job array"))
            })?;
            let number = value.trim().parse::<usize>();
            number.map_err(|_| outside(format!("--shard auto: {name} is {value:?}, which is no whole number")))
        };
        let task = number("SLURM_ARRAY_TASK_ID")?;
        let first = number("SLURM_ARRAY_TASK_MIN")?;
        let tasks = number("SLURM_ARRAY_TASK_COUNT")?;
        let gaps = || {
            outside(format!(
                "--shard auto: task {task} of an array of {tasks} that begins at {first}: its numbers have gaps, and \
                 which part is whose cannot be told"
            ))
        };
        // The last number is not needed, but tells of gaps in an array before a task of it lies outside.
        let whole = first.checked_add(tasks).and_then(|end| end.checked_sub(1));
        if variable("SLURM_ARRAY_TASK_MAX").is_some_and(|last| last.trim().parse().ok() != whole) {
            return Err(gaps());
        }
        let part = task.checked_sub(first).and_then(|before| before.checked_add(1));
        part.and_then(|part| Self::new(part, tasks)).ok_or_else(gaps)
    }
}

fn outside(message: String) -> Error {
    Error::usage(message)
        .hint("submit an array without gaps, such as `sbatch --array=1-8 …`; or name the part: --shard 3/8")
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl ShardArgument {
    /// The part that is meant.
    pub fn resolve(self) -> Result<Shard> {
        match self {
            Self::Part(shard) => Ok(shard),
            Self::Auto => Shard::of_array_task(|name| std::env::var(name).ok()),
        }
    }
}

impl FromStr for ShardArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let form = || "a part is I/N, such as 2/8, or auto".to_owned();
        let (part, of) = text.split_once('/').ok_or_else(form)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<usize>().ok()).flatten().ok_or_else(form)
        };
        let part = number(part)?;
        let of = number(of)?;
        let shard =
            Shard::new(part, of).ok_or_else(|| format!("there is no part {part} of {of}: I counts from 1 to N"));
        shard.map(Self::Part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_whole_in_order_and_of_one_length() {
        for n in [0, 1, 2, 5, 7, 24, 1000, usize::MAX] {
            for of in [1, 2, 3, 7, 64] {
                let mut next = 0;
                for part in 1..=of {
                    let range = Shard::new(part, of).unwrap().range(n);
                    assert_eq!(range.start, next, "{part}/{of} of {n}");
                    assert!([n / of, n / of + 1].contains(&range.len()), "{part}/{of} of {n}: {range:?}");
                    next = range.end;
                }
                assert_eq!(next, n);
            }
        }
        assert_eq!(Shard::new(2, 3).unwrap().range(10), 3..6);
    }

    #[test]
    fn a_part_is_read_as_it_is_written_and_nothing_else_is_one() {
        let shard = Shard::new(2, 8).unwrap();
        assert_eq!("2/8".parse(), Ok(ShardArgument::Part(shard)));
        assert_eq!("auto".parse(), Ok(ShardArgument::Auto));
        for wrong in ["", "2", "/", "2/", "/8", "0/8", "9/8", "1/0", "-1/8", "+1/8", "1.0/8", "1/8/8", "a/b", "Auto"] {
            assert!(wrong.parse::<ShardArgument>().is_err(), "{wrong}");
        }
        assert_eq!((shard.to_string(), shard.file_name()), ("2/8".into(), "part-2-of-8".into()));
        assert_eq!(Shard::of_file_name("part-2-of-8"), Some(shard));
        for wrong in ["part-02-of-8", "part-2-of-+8", "part-9-of-8", "part-2-of-8.jsonl", "part-2"] {
            assert_eq!(Shard::of_file_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_array_task_takes_its_part_whatever_number_the_array_begins_at() {
        let task = |id: &str, min: &str, count: &str, max: Option<&str>| {
            Shard::of_array_task(|name| {
                Some(match name {
                    "SLURM_ARRAY_TASK_ID" => id.to_owned(),
                    "SLURM_ARRAY_TASK_MIN" => min.to_owned(),
                    "SLURM_ARRAY_TASK_COUNT" => count.to_owned(),
                    _ => max?.to_owned(),
                })
            })
        };
        for (id, min, count, max, part) in [
            ("0", "0", "8", Some("7"), 1),
            ("7", "0", "8", None, 8),
            ("1", "1", "8", Some("8"), 1),
            ("12", "10", "3", None, 3),
        ] {
            assert_eq!(task(id, min, count, max).unwrap(), Shard::new(part, count.parse().unwrap()).unwrap());
        }
        // --array=1-7:2, --array=3,7, and what no Slurm sets.
        for (id, min, count, max) in
            [("5", "1", "4", Some("7")), ("7", "3", "2", None), ("3", "3", "2", Some("7")), ("1", "2", "4", None)]
        {
            let error = task(id, min, count, max).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("gaps"), "{error}");
        }
        assert_eq!(task("1", "1", "many", None).unwrap_err().exit_code(), 2);
        let error = Shard::of_array_task(|_| None).unwrap_err();
        assert!(error.to_string().contains("SLURM_ARRAY_TASK_ID is not set") && error.hint_text().is_some());
    }
}
