use std::time::{Duration, Instant};

use super::*;
use crate::error::Kind;

/// Longest that a rank waits for another; one that waits longer fails its test, and the others with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until there is one.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waiting for {what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// What every rank returns, each on a thread of its own.
fn on_ranks<T: Send>(size: usize, work: impl Fn(Collective) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let ranks: Vec<_> = Collective::threads(size).into_iter().map(|ranks| scope.spawn(|| work(ranks))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// A sum in rank order differs from one in any other.
fn value(rank: usize, i: usize) -> f32 {
    [1e8, 1.0, -1e8, 3.0][rank] + i as f32
}

#[test]
fn sums_are_in_rank_order_and_the_same_on_every_rank() {
    for size in 1..=4 {
        for length in [0, 1, 2, 3, 7, 1000] {
            let expected: Vec<f32> =
                (0..length).map(|i| (1..size).fold(value(0, i), |sum, rank| sum + value(rank, i))).collect();
            let sums = on_ranks(size, |ranks| {
                let mut values: Vec<f32> = (0..length).map(|i| value(ranks.rank(), i)).collect();
                ranks.sum(&mut values).unwrap();
                let mut double = [f64::from(value(ranks.rank(), 0)), 0.5];
                ranks.sum_f64(&mut double).unwrap();
                (values, double)
            });
            for (sum, double) in sums {
                assert_eq!(sum, expected, "{size} ranks, {length} numbers");
                assert_eq!(double[1], 0.5 * size as f64);
            }
        }
    }
}

#[test]
fn bytes_reach_rank_0_or_everyone() {
    let gathered = on_ranks(3, |ranks| {
        let own = vec![ranks.rank() as u8; ranks.rank()];
        let own_items: Vec<usize> = ranks.round_robin(&[0, 1, 2, 3, 4, 5, 6]).copied().collect();
        let made = own_items.iter().map(|&item| vec![9; item]).collect();
        let made = ranks.gather_round_robin(made).unwrap();
        assert_eq!(made, ranks.is_root().then(|| (0..7).map(|item| vec![9; item]).collect::<Vec<_>>()));
        (ranks.gather(&own).unwrap(), ranks.all_gather(&own).unwrap(), ranks.broadcast(&[7, 7]).unwrap(), own_items)
    });
    let all = vec![vec![], vec![1], vec![2, 2]];
    for (rank, (gathered, everywhere, first, own_items)) in gathered.into_iter().enumerate() {
        assert_eq!(gathered, if rank == 0 { all.clone() } else { Vec::new() });
        assert_eq!((everywhere, first), (all.clone(), vec![7, 7]));
        assert_eq!(own_items, [vec![0, 3, 6], vec![1, 4], vec![2, 5]][rank]);
    }
}

#[test]
fn a_rank_that_fails_between_meetings_ends_all_at_the_next() {
    for (failing, host) in [(0, "host0"), (2, "host1")] {
        let ends = on_ranks(3, |ranks| {
            let work = || {
                ranks.on_rank_0(|| Ok(1))?;
                if ranks.rank() == failing {
                    return Err(Error::resources("no memory").hint("buy some"));
                }
                ranks.sum(&mut [1.0])?;
                ranks.gather(&[1])
            };
            let end = ranks.close(work()).unwrap_err();
            ranks.leave();
            end
        });
        for end in ends {
            assert_eq!((end.to_string(), end.exit_code()), (format!("rank {failing} on {host}: no memory"), 5));
            assert_eq!(end.hint_text(), Some("buy some"));
        }
    }
}

#[test]
fn an_error_of_all_is_said_plainly_and_a_late_one_still_reaches_all() {
    let ends = on_ranks(2, |ranks| ranks.close(ranks.agree::<()>(Err(Error::usage("no config")))).unwrap_err());
    assert!(ends.iter().all(|end| end.to_string() == "no config"), "{ends:?}");
    let ends = on_ranks(3, |ranks| {
        let late = if ranks.rank() == 1 { Err(Error::run("disk")) } else { Ok(()) };
        ranks.close(late).unwrap_err().to_string()
    });
    assert_eq!(ends, ["rank 1 on host0: disk"; 3]);
}

#[test]
fn a_signal_to_one_rank_is_everyones_and_yields_to_an_error() {
    let signal = |number| Error::new(Kind::Signal(number), "stopped");
    let agree = |results: [Option<Error>; 3]| {
        on_ranks(3, |ranks| ranks.agree(results[ranks.rank()].clone().map_or(Ok(()), Err)).unwrap_err().kind())
    };
    assert_eq!(agree([None, Some(signal(10)), Some(signal(15))]), [Kind::Signal(10); 3]);
    assert_eq!(agree([Some(signal(15)), None, Some(Error::data("x"))]), [Kind::Data; 3]);
    // All go on together afterwards: they save.
    let saved = on_ranks(2, |ranks| {
        let met = ranks.agree(if ranks.is_root() { Ok(()) } else { Err(signal(15)) }).unwrap_err();
        ranks.on_rank_0(|| Ok(()))?;
        ranks.close::<()>(Err(met))
    });
    assert!(saved.iter().all(|end| end.as_ref().is_err_and(|e| e.exit_code() == 143)), "{saved:?}");
}

#[test]
fn long_work_stops_for_another_ranks_error_and_does_not_hide_it() {
    let ends = on_ranks(3, |ranks| {
        let part = || {
            if ranks.rank() == 1 {
                return Err(Error::new(Kind::Signal(15), "stopped"));
            }
            Err(wait_for("rank 1's error", || ranks.check_others().err()))
        };
        let met = ranks.agree::<()>(part()).unwrap_err();
        // The next meeting begins anew.
        ranks.check_others().unwrap();
        ranks.sum(&mut [1.0]).unwrap();
        met
    });
    assert!(ends.iter().all(|end| end.kind() == Kind::Signal(15)), "{ends:?}");
    assert!(Collective::one().check_others().is_ok());
}

#[test]
fn messages_of_any_length_come_whole_and_in_order_beside_the_meetings() {
    let lengths = [0, 1, 3063, 3064, 3065, 100_000];
    let told = on_ranks(3, |ranks| {
        for to in (0..3).filter(|&to| to != ranks.rank()) {
            lengths.iter().for_each(|&length| ranks.send(to, &vec![ranks.rank() as u8; length]));
        }
        ranks.sum(&mut [1.0]).unwrap();
        let mut come = Vec::new();
        while come.len() < 2 * lengths.len() {
            come.push(wait_for("a message", || ranks.receive()));
        }
        assert!(ranks.receive().is_none());
        (ranks.rank(), come)
    });
    for (rank, come) in told {
        for from in (0..3).filter(|&from| from != rank) {
            let messages = come.iter().filter(|(sender, _)| *sender == from).map(|(_, message)| message);
            let expected: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![from as u8; length]).collect();
            assert!(messages.eq(expected.iter()), "from {from} to {rank}");
        }
    }
}

#[test]
fn who_waits_for_messages_sees_rank_0_and_any_error_come_to_a_meeting() {
    for failing in [0, 2] {
        let ends = on_ranks(3, |ranks| {
            if ranks.rank() == failing {
                return ranks.close::<()>(Err(Error::run("late"))).unwrap_err().to_string();
            }
            wait_for("a call", || ranks.is_called().then_some(()));
            ranks.close(ranks.broadcast(&[])).unwrap_err().to_string()
        });
        assert_eq!(ends, vec![format!("rank {failing} on host{}: late", failing / 2); 3]);
    }
    let met = on_ranks(2, |ranks| {
        if !ranks.is_root() {
            wait_for("a call", || ranks.is_called().then_some(()));
        }
        ranks.broadcast(b"go").unwrap()
    });
    assert_eq!(met, [b"go", b"go"]);
}
