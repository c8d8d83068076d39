use std::collections::BTreeMap;

use super::{
    super::tests::{hot, model, requests, tokenizer_with_stops},
    open::WorkerModel,
    root::share,
    worker::answer,
    *,
};
use crate::{
    generate::{Budget, Engine},
    model::Replicas,
    parallel::{Collective, tests::wait_for},
};

const BUDGET: Budget = Budget { tokens: 100_000, rows: 4 };

/// What one process and what `n` ranks make of the same requests, by trials or not.
fn on(n: usize, asked: &[Request], trials: bool) -> BTreeMap<usize, Completed> {
    let tokenizer = tokenizer_with_stops(&[7]);
    let work = |ranks: Collective| {
        let model = model();
        let engine = Engine::new(&model, &tokenizer, BUDGET);
        let mut found = BTreeMap::new();
        if ranks.is_root() {
            // Any function of the answer may judge it.
            let mut accept = |_: usize, _: usize, generation: &Generation| generation.ids.iter().sum::<u32>() % 3 == 0;
            let mut emit = |completed: Completed| {
                found.insert(completed.index, completed);
                Ok(())
            };
            let requests = asked.iter().cloned();
            let accept: Option<&mut crate::generate::Accept<'_>> = if trials { Some(&mut accept) } else { None };
            match (n, accept) {
                (1, Some(accept)) => engine.run(requests, accept, &mut emit),
                (1, None) => engine.run_all(requests, &mut emit),
                (_, accept) => {
                    let replicas = Replicas { ranks: ranks.clone(), opening: 5 };
                    share(&engine, &replicas, requests.map(Some), accept, &mut emit)
                }
            }
            .unwrap();
        } else {
            let held = WorkerModel { number: 5, model, tokenizer: tokenizer_with_stops(&[7]), budget: BUDGET };
            let (_, message) = wait_for("rank 0's message", || ranks.receive());
            answer(&ranks, Some(&held), &message).unwrap();
        }
        found
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = Collective::threads(n).into_iter().map(|ranks| scope.spawn(|| work(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).reduce(|first, _| first).unwrap()
    })
}

#[test]
fn ranks_answer_what_one_process_answers() {
    let samples = requests(9, 3, hot());
    let mut mixed = requests(30, 1, hot());
    for (i, request) in mixed.iter_mut().enumerate() {
        request.samples = [1, 0, 2][i % 3];
        if i % 6 == 1 {
            request.continuations = vec![vec![3, 1], vec![4]];
        }
    }
    for (asked, trials) in [(&samples, true), (&samples, false), (&mixed, false)] {
        let one = on(1, asked, trials);
        assert_eq!(one.len(), asked.len());
        for n in [2, 3] {
            assert_eq!(on(n, asked, trials), one, "{n} ranks, trials: {trials}");
        }
    }
    let written: Vec<usize> = on(1, &samples, true).values().map(|one| one.generations.len()).collect();
    assert!(written.contains(&1) && written.iter().any(|n| *n > 1), "{written:?}");
}

#[test]
fn what_is_no_number_arrives_as_it_is() {
    let logits = Some(vec![f32::NAN, f32::INFINITY, 0.1]);
    let sent = Completed { logits, log_probabilities: vec![f64::NEG_INFINITY, -0.1], ..Completed::of(3) };
    let read: CompletedMessage = read(&write(&CompletedMessage::new(3, sent.clone())).unwrap()).unwrap();
    let read = read.completed();
    let bits = |completed: &Completed| completed.logits.iter().flatten().map(|n| n.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read), bits(&sent));
    assert_eq!(read.log_probabilities, sent.log_probabilities);
}
