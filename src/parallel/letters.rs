//! Letters: bytes from one rank to another, outside of the meetings of all.
//!
//! A letter travels in packets so small that every MPI library keeps them for a receiver that does not look yet: the
//! sender goes on with its work. Packets of one sender come in their order; the first tells the letter's length.

use std::sync::{Mutex, PoisonError};

use super::Collective;

/// Bytes of a packet: Open MPI hands messages of up to 4096 bytes over at once, its own header included, and other
/// libraries larger ones.
const PACKET: usize = 3 << 10;

/// Letters that have come in part, one a rank.
pub(super) struct Letters(Vec<Mutex<Vec<u8>>>);

impl Letters {
    pub fn new(ranks: usize) -> Self {
        Self((0..ranks).map(|_| Mutex::default()).collect())
    }

    /// Adds a packet from this rank; the letter, where it is whole now.
    fn add(&self, from: usize, packet: &[u8]) -> Option<Vec<u8>> {
        let mut begun = self.0[from].lock().unwrap_or_else(PoisonError::into_inner);
        begun.extend(packet);
        let (length, letter) = begun.split_first_chunk::<8>()?;
        if (letter.len() as u64) < u64::from_le_bytes(*length) {
            return None;
        }
        let letter = letter.to_vec();
        begun.clear();
        Some(letter)
    }
}

impl Collective {
    /// Sends a letter to another rank, which need not wait for it.
    pub fn send(&self, to: usize, letter: &[u8]) {
        let whole = [&(letter.len() as u64).to_le_bytes(), letter].concat();
        whole.chunks(PACKET).for_each(|packet| self.0.transport.send(to, packet));
    }

    /// A letter that has come, with the rank that sent it; `None` where none is here. Nobody waits.
    pub fn receive(&self) -> Option<(usize, Vec<u8>)> {
        for from in (0..self.size()).filter(|&from| from != self.rank()) {
            while let Some(packet) = self.0.transport.receive(from) {
                if let Some(letter) = self.0.letters.add(from, &packet) {
                    return Some((from, letter));
                }
            }
        }
        None
    }

    /// Whether rank 0 waits at a meeting, or any rank with an error of its own.
    pub fn is_called(&self) -> bool {
        self.0.transport.holds_failure() || self.0.transport.holds_word_of(0)
    }
}
