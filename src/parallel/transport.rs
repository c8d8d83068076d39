//! How slices pass between ranks. Nothing is summed here.

use super::number::Number;

#[cfg(test)]
pub(super) use threads::Threads;

/// Bytes of a message at most: MPI counts elements in C ints, and libraries set aside memory by the message.
const MESSAGE: usize = 64 << 20;

/// Marks a message that begins a rank's error, so that it is seen before it is received.
const FAILURE: i32 = 1;

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
        self.exchange_tagged(0, sends, receives);
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
    pub fn all_to_all<T: Number>(&self, rank: usize, size: usize, own: T, failure: bool) -> Vec<T> {
        let own = [own];
        let mut all = vec![own[0]; size];
        let sends = (0..size).filter(|&to| to != rank).map(|to| (to, &own[..])).collect();
        let receives = all.chunks_mut(1).enumerate().filter(|(from, _)| *from != rank).collect();
        self.exchange_tagged(if failure { FAILURE } else { 0 }, sends, receives);
        all
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

    /// Whether what this rank brings to a meeting has come and is not received yet.
    pub fn holds_word_of(&self, rank: usize) -> bool {
        match self {
            Self::One => _ = rank,
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => return world.holds_word_of(rank),
            #[cfg(test)]
            Self::Threads(threads) => return threads.holds_word_of(rank),
        }
        false
    }

    /// Sends a packet of a letter, which has nothing to do with what ranks exchange at meetings.
    pub fn send(&self, to: usize, packet: &[u8]) {
        match self {
            Self::One => _ = (to, packet),
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => world.send(to, packet),
            #[cfg(test)]
            Self::Threads(threads) => threads.send(to, packet),
        }
    }

    /// The next packet from this rank, if one has come.
    pub fn receive(&self, from: usize) -> Option<Vec<u8>> {
        match self {
            Self::One => _ = from,
            #[cfg(feature = "mpi")]
            Self::Mpi(world) => return world.receive(from),
            #[cfg(test)]
            Self::Threads(threads) => return threads.receive(from),
        }
        None
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
        packets_to: Vec<Sender<Vec<u8>>>,
        packets_from: Vec<Mutex<Receiver<Vec<u8>>>>,
    }

    impl Threads {
        /// As many ranks, each connected with each.
        pub fn connected(size: usize) -> Vec<Self> {
            let none = || Self { to: vec![], from: vec![], packets_to: vec![], packets_from: vec![] };
            let mut ranks: Vec<Self> = (0..size).map(|_| none()).collect();
            for from in 0..size {
                for to in 0..size {
                    let (sender, receiver) = channel();
                    ranks[from].to.push(sender);
                    ranks[to].from.push(Mutex::new((receiver, VecDeque::new())));
                    let (sender, receiver) = channel();
                    ranks[from].packets_to.push(sender);
                    ranks[to].packets_from.push(Mutex::new(receiver));
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
                let (_, message) = looked_at.pop_front().unwrap_or_else(|| channel.recv().unwrap());
                part.copy_from_slice(message.downcast_ref::<Vec<T>>().unwrap());
            }
        }

        pub fn holds_word_of(&self, rank: usize) -> bool {
            let (channel, looked_at) = &mut *self.from[rank].lock().unwrap();
            looked_at.extend(channel.try_iter());
            !looked_at.is_empty()
        }

        pub fn send(&self, to: usize, packet: &[u8]) {
            drop(self.packets_to[to].send(packet.to_vec()));
        }

        pub fn receive(&self, from: usize) -> Option<Vec<u8>> {
            self.packets_from[from].lock().unwrap().try_recv().ok()
        }

        pub fn holds(&self, tag: i32) -> bool {
            self.from.iter().any(|from| {
                let (channel, looked_at) = &mut *from.lock().unwrap();
                looked_at.extend(channel.try_iter());
                looked_at.iter().any(|(found, _)| *found == tag)
            })
        }
    }
}
