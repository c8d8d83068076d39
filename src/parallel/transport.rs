//! How slices pass between ranks. Nothing is summed here.

use super::number::Number;

#[cfg(test)]
pub(super) use threads::Threads;

/// Bytes of a message at most: MPI counts elements in C ints, and libraries set aside memory by the message.
const MESSAGE: usize = 64 << 20;

/// Tags: what ranks exchange at a meeting; the note that goes before a rank's error, so that others see it coming; a
/// packet of a message.
const MEETING: i32 = 0;
const FAILURE: i32 = 1;
const LETTER: i32 = 2;

/// In the number that a rank brings to a meeting: a note goes before it.
const NOTED: u64 = 1 << 63;

/// The way to the other ranks.
pub(super) enum Transport {
    /// There are none.
    One,
    /// MPI's.
    #[cfg(feature = "mpi")]
    Mpi(super::world::World),
    /// Channels between threads.
    #[cfg(test)]
    Threads(Threads),
}

impl Transport {
    /// Sends each of `sends` to the rank beside it and fills each of `receives` from the rank beside it; returns when
    /// all is done. The two sides of a message give it the same length.
    pub fn exchange<T: Number>(&self, sends: Vec<(usize, &[T])>, receives: Vec<(usize, &mut [T])>) {
        self.exchange_tagged(MEETING, sends, receives);
    }

    fn exchange_tagged<T: Number>(&self, tag: i32, sends: Vec<(usize, &[T])>, receives: Vec<(usize, &mut [T])>) {
        let most = MESSAGE / size_of::<T>();
        let sends = sends.into_iter().flat_map(|(to, part)| part.chunks(most).map(move |piece| (to, piece)));
        let receives =
            receives.into_iter().flat_map(|(from, part)| part.chunks_mut(most).map(move |piece| (from, piece)));
        match self {
            Self::One => drop((tag, sends, receives)),
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => world.exchange(tag, sends.collect(), receives.collect()),
            #[cfg(test)]
            Self::Threads(threads) => threads.exchange(tag, sends, receives),
        }
    }

    /// Every rank's number, on every rank; `failure` marks this one's.
    pub fn all_to_all(&self, rank: usize, size: usize, own: u64, failure: bool) -> Vec<u64> {
        let others = || (0..size).filter(|&other| other != rank);
        if failure {
            self.exchange_tagged::<u8>(FAILURE, others().map(|to| (to, &[0][..])).collect(), Vec::new());
        }
        let own = [if failure { own | NOTED } else { own }];
        let mut all = vec![own[0]; size];
        let sends = others().map(|to| (to, &own[..])).collect();
        let receives = all.chunks_mut(1).enumerate().filter(|(from, _)| *from != rank).collect();
        self.exchange(sends, receives);
        let mut notes = vec![0u8; size];
        let noted = |from: usize| from != rank && all[from] & NOTED != 0;
        let receives = notes.chunks_mut(1).enumerate().filter(|(from, _)| noted(*from)).collect();
        self.exchange_tagged(FAILURE, Vec::new(), receives);
        all.into_iter().map(|number| number & !NOTED).collect()
    }

    /// Whether this rank waits at a meeting that this one has not come to.
    pub fn holds_word_of(&self, rank: usize) -> bool {
        match self {
            Self::One => _ = rank,
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => return world.holds_from(rank, MEETING),
            #[cfg(test)]
            Self::Threads(threads) => return threads.holds_from(rank, MEETING),
        }
        false
    }

    /// Sends a packet of a message.
    pub fn send(&self, to: usize, packet: &[u8]) {
        self.exchange_tagged(LETTER, vec![(to, packet)], Vec::new());
    }

    /// The next packet of a message from this rank, if one has come.
    pub fn receive(&self, from: usize) -> Option<Vec<u8>> {
        match self {
            Self::One => _ = from,
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => return world.receive_if_any(from, LETTER),
            #[cfg(test)]
            Self::Threads(threads) => return threads.receive_if_any(from, LETTER),
        }
        None
    }

    /// Whether a rank's failure has come that is not received yet.
    pub fn holds_failure(&self) -> bool {
        match self {
            Self::One => false,
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => world.holds(FAILURE),
            #[cfg(test)]
            Self::Threads(threads) => threads.holds(FAILURE),
        }
    }

    /// Ends every rank's process with this exit code; returns where there is no other rank.
    pub fn abort(&self, code: u8) {
        match self {
            Self::One => _ = code,
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => world.abort(code),
            #[cfg(test)]
            Self::Threads(_) => panic!("aborted with {code}"),
        }
    }
}

/// Ranks that are threads, so that what ranks do together can be tested in one process.
#[cfg(test)]
mod threads {
    use std::{
        any::Any,
        collections::VecDeque,
        sync::{
            Mutex,
            mpsc::{Receiver, Sender, channel},
        },
    };

    use super::Number;

    /// A tag and a slice.
    type Message = (i32, Box<dyn Any + Send>);

    /// One rank's ends of the channels; what came and was only looked at waits beside its channel.
    pub struct Threads {
        to: Vec<Sender<Message>>,
        from: Vec<Mutex<(Receiver<Message>, VecDeque<Message>)>>,
    }

    impl Threads {
        /// As many ranks, each connected with each.
        pub fn connected(size: usize) -> Vec<Self> {
            let mut ranks: Vec<Self> = (0..size).map(|_| Self { to: Vec::new(), from: Vec::new() }).collect();
            for from in 0..size {
                for to in 0..size {
                    let (sender, receiver) = channel();
                    ranks[from].to.push(sender);
                    ranks[to].from.push(Mutex::new((receiver, VecDeque::new())));
                }
            }
            ranks
        }

        pub fn exchange<'a, T: Number>(
            &self,
            tag: i32,
            sends: impl Iterator<Item = (usize, &'a [T])>,
            receives: impl Iterator<Item = (usize, &'a mut [T])>,
        ) {
            // A rank that has ended takes no message; whoever waits for one from it panics.
            sends.for_each(|(to, part)| drop(self.to[to].send((tag, Box::new(part.to_vec())))));
            for (from, part) in receives {
                let (channel, looked_at) = &mut *self.from[from].lock().unwrap();
                while !looked_at.iter().any(|(found, _)| *found == tag) {
                    looked_at.push_back(channel.recv().unwrap());
                }
                part.copy_from_slice(&take(looked_at, tag).unwrap());
            }
        }

        pub fn receive_if_any(&self, from: usize, tag: i32) -> Option<Vec<u8>> {
            let (channel, looked_at) = &mut *self.from[from].lock().unwrap();
            looked_at.extend(channel.try_iter());
            take(looked_at, tag)
        }

        pub fn holds_from(&self, from: usize, tag: i32) -> bool {
            let (channel, looked_at) = &mut *self.from[from].lock().unwrap();
            looked_at.extend(channel.try_iter());
            looked_at.iter().any(|(found, _)| *found == tag)
        }

        pub fn holds(&self, tag: i32) -> bool {
            (0..self.from.len()).any(|from| self.holds_from(from, tag))
        }
    }
    /// The first of the messages of this tag.
    fn take<T: Number>(messages: &mut VecDeque<Message>, tag: i32) -> Option<Vec<T>> {
        let first = messages.iter().position(|(found, _)| *found == tag)?;
        messages.remove(first)?.1.downcast().ok().map(|message| *message)
    }
}
