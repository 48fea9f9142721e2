//! The explorer on a protocol whose states can be counted by hand.

use crate::explorer::{self, Harm, Protocol, Step, explore};

/// A counter that two add one to: reading and writing apart, which loses one; and one may die.
struct Counter {
    is_atomic: bool,
    may_hang: bool,
}

/// Value of the counter, and what each has read (`None`: not yet) and whether it has written.
type Counting = (u8, [(Option<u8>, bool); 2], bool);

impl Protocol for Counter {
    type State = Counting;
    type Action = &'static str;

    fn initial(&self) -> Counting {
        (0, [(None, false); 2], false)
    }

    fn steps(&self, state: &Counting) -> Vec<Step<Self>> {
        let mut steps = Vec::new();
        let mut step = |action, is_fault, next| steps.push(Step { action, is_fault, next });
        let (value, workers, is_hanging) = *state;
        for (i, worker) in workers.into_iter().enumerate() {
            let mut next = *state;
            match worker {
                _ if is_hanging => step("hangs on", false, *state),
                (None, _) if self.is_atomic => {
                    next = (value + 1, workers, is_hanging);
                    next.1[i] = (Some(value), true);
                    step("adds one", false, next);
                }
                (None, _) => {
                    next.1[i].0 = Some(value);
                    step("reads", false, next);
                }
                (Some(read), false) => {
                    next.0 = read + 1;
                    next.1[i].1 = true;
                    step("writes", false, next);
                }
                (Some(_), true) => {}
            }
        }
        if self.may_hang {
            step("hangs", true, (value, workers, true));
        }
        steps
    }

    fn harms(&self, state: &Counting) -> Vec<Harm> {
        explorer::done([(Harm::Doubled, state.0 > 2)])
    }

    fn harm_at_rest(&self, state: &Counting) -> Option<Harm> {
        (state.0 < 2).then_some(Harm::Lost)
    }
}

#[test]
fn a_lost_update_is_found_by_the_shortest_way() {
    let found = explore(&Counter { is_atomic: false, may_hang: false }, 13..=13);
    found.assert_harms(&[Harm::Lost]);
    assert_eq!(found.harms[0].1, ["reads", "reads", "writes", "writes"]);
    explore(&Counter { is_atomic: true, may_hang: false }, 5..=5).assert_harms(&[]);
}

#[test]
fn what_goes_on_for_ever_and_comes_to_no_rest_is_stuck() {
    let found = explore(&Counter { is_atomic: true, may_hang: true }, 10..=10);
    found.assert_harms(&[Harm::Stuck]);
    assert_eq!(found.harms[0].1, ["hangs"]);
}

#[test]
#[should_panic(expected = "only 5 states")]
fn a_model_that_became_trivial_is_refused() {
    explore(&Counter { is_atomic: true, may_hang: false }, 6..=99);
}
