//! Messages: bytes from one rank to another, outside of the meetings of all.
//!
//! A message travels in packets so small that every MPI library keeps them for a receiver that does not look yet: the
//! sender goes on with its work. Packets of one sender come in their order; the first tells the message's length.

use std::sync::{Mutex, PoisonError};

use super::Collective;

/// Bytes of a packet: Open MPI hands messages of up to 4096 bytes over at once, its own header included, and other
/// libraries larger ones.
const PACKET: usize = 3 << 10;

/// Messages that have come in part, one a rank.
pub(super) struct Messages(Vec<Mutex<Vec<u8>>>);

impl Messages {
    pub fn new(ranks: usize) -> Self {
        Self((0..ranks).map(|_| Mutex::default()).collect())
    }

    /// Adds a packet from this rank; the message, where it is whole now.
    fn add(&self, from: usize, packet: &[u8]) -> Option<Vec<u8>> {
        let mut begun = self.0[from].lock().unwrap_or_else(PoisonError::into_inner);
        begun.extend(packet);
        let (length, message) = begun.split_first_chunk::<8>()?;
        if (message.len() as u64) < u64::from_le_bytes(*length) {
            return None;
        }
        let message = message.to_vec();
        begun.clear();
        Some(message)
    }
}

impl Collective {
    /// Sends a message to another rank, which need not wait for it.
    pub fn send(&self, to: usize, message: &[u8]) {
        let whole = [&(message.len() as u64).to_le_bytes(), message].concat();
        whole.chunks(PACKET).for_each(|packet| self.0.transport.send(to, packet));
    }

    /// A message that has come, with the rank that sent it; `None` where none is here. Nobody waits.
    pub fn receive(&self) -> Option<(usize, Vec<u8>)> {
        for from in (0..self.size()).filter(|&from| from != self.rank()) {
            while let Some(packet) = self.0.transport.receive(from) {
                if let Some(message) = self.0.messages.add(from, &packet) {
                    return Some((from, message));
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
