//! Passes that can run in two ways: the usual one, and the one that an environment variable asks for.

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "cuda")]
use crate::error::{Error, Result};

/// Which of its two ways a pass takes.
#[derive(Debug)]
pub struct Switch {
    variable: &'static str,
    values: [&'static str; 2],
    first_is_usual: bool,
    // Changed while `turned` works.
    turned: AtomicBool,
}

/// Attention by Hopper's products or by mma.sync, where the card has both.
pub static ATTENTION: Switch = Switch::new("CLSGEN_ATTENTION", ["wgmma", "mma"], true);
/// Attention's backward going over the keys once or twice; the former has not yet run on a card.
pub static ATTENTION_BACKWARD: Switch = Switch::new("CLSGEN_ATTENTION_BACKWARD", ["one-pass", "two-pass"], false);
/// Decoding that reads keys which several rows share once, or for each row alone; the former has not yet run on a card.
pub static DECODE: Switch = Switch::new("CLSGEN_DECODE", ["shared", "alone"], false);
/// Adapters by kernels of their own or by cuBLAS's products; the former have not yet run on a card.
pub static LORA: Switch = Switch::new("CLSGEN_LORA", ["fused", "products"], false);
/// Decoding steps launched as captured graphs or op by op; the former has not yet run on a card.
pub static GRAPH: Switch = Switch::new("CLSGEN_GRAPH", ["on", "off"], false);

impl Switch {
    const fn new(variable: &'static str, values: [&'static str; 2], first_is_usual: bool) -> Self {
        Self { variable, values, first_is_usual, turned: AtomicBool::new(false) }
    }

    /// Whether it is the first of the two: as the variable says, which may hold either's name, else as usual.
    pub(crate) fn takes_first(&self) -> bool {
        self.asked().unwrap_or(self.first_is_usual) != self.turned.load(Ordering::Relaxed)
    }

    /// What the variable asks for; `None` where it is not set, or holds neither name.
    fn asked(&self) -> Option<bool> {
        let value = std::env::var_os(self.variable)?;
        let place = self.values.iter().position(|name| value == *name)?;
        Some(place == 0)
    }

    /// Refuses (exit 2) variables that hold neither name, and graphs of steps that no graph holds: what is then timed
    /// would be taken for what was asked.
    #[cfg(feature = "cuda")]
    pub(super) fn check_all() -> Result<()> {
        let is_set = |switch: &Self| std::env::var_os(switch.variable).is_some_and(|value| !value.is_empty());
        let wrong = |switch: &&&Self| is_set(switch) && switch.asked().is_none();
        match [&ATTENTION, &ATTENTION_BACKWARD, &DECODE, &LORA, &GRAPH].iter().find(wrong) {
            // Rows that share keys are decoded by items, whose number changes from step to step.
            None if GRAPH.takes_first() && DECODE.takes_first() => {
                Err(Error::usage("CLSGEN_GRAPH=on does not go with CLSGEN_DECODE=shared: no graph holds such a step")
                    .hint("unset one of them: unset CLSGEN_DECODE"))
            }
            None => Ok(()),
            Some(Self { variable, values: [first, second], .. }) => {
                Err(Error::usage(format!("{variable} is neither `{first}` nor `{second}`"))
                    .hint(format!("set it to one of these, or unset it: unset {variable}")))
            }
        }
    }

    /// Runs `work` in the way that these passes do not take else; on a CPU nothing changes. For checks: one at a
    /// time, though `work` may itself turn a switch back.
    pub fn turned<T>(switches: &[&Self], work: impl FnOnce() -> T) -> T {
        let turn = || {
            for switch in switches {
                switch.turned.fetch_xor(true, Ordering::Relaxed);
            }
        };
        turn();
        let done = work();
        turn();
        done
    }
}
