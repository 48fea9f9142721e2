//! Streams and numbers against a model: random lives of machines that crash, of backups that are restored, and of
//! disks that are cloned and go on side by side.
//!
//! Real are the journal on a real folder, the forwarder's cursor, ranges and progress. Kafka keeps what reaches it in
//! the order of each partition; what a producer left on the network when it ended may still arrive. The cloud keeps one
//! mark per (stream, topic, partition). Values are unique, also those of gaps and of records that close a stream.

use proptest::prelude::*;

use crate::journal::writer::Urgency;

mod machine;
mod world;

use machine::Machine;
use world::{Disk, World};

const MACHINES_MAX: usize = 3;
const BACKUPS_MAX: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Op {
    Append(usize),
    Commit(Urgency),
    /// So many batches.
    Send(usize),
    /// Of each partition some arrive, and some of these are acknowledged.
    Arrive(u64),
    Cursor,
    /// The connection is made anew; live data may go first from here on.
    Producer(bool),
    Restart,
    Backup,
    Restore(usize),
    /// To this place, perhaps instead of another machine, whose disk is lost.
    Clone(usize),
    GiveUp,
    /// Of what dead producers left, some arrives.
    Late(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let urgency = prop_oneof![4 => Just(Urgency::Data), 1 => Just(Urgency::Control)];
    prop_oneof![
        8 => (1usize..6).prop_map(Op::Append),
        8 => urgency.prop_map(Op::Commit),
        8 => (1usize..5).prop_map(Op::Send),
        8 => any::<u64>().prop_map(Op::Arrive),
        5 => Just(Op::Cursor),
        2 => any::<bool>().prop_map(Op::Producer),
        2 => Just(Op::Restart),
        2 => Just(Op::Backup),
        2 => (0..BACKUPS_MAX).prop_map(Op::Restore),
        2 => (0..MACHINES_MAX).prop_map(Op::Clone),
        2 => Just(Op::GiveUp),
        2 => any::<u64>().prop_map(Op::Late),
    ]
}

/// Small numbers, one after the other.
fn small(mut random: u64) -> impl FnMut() -> usize {
    move || {
        random = random.rotate_right(3);
        (random % 8) as usize
    }
}

fn step(at: usize, op: Op, machines: &mut Vec<Machine>, backups: &mut Vec<Disk>, world: &mut World) {
    let at = at % machines.len();
    let machine = &mut machines[at];
    match op {
        Op::Append(count) => machine.append(count, world),
        Op::Commit(urgency) => machine.commit(urgency, world),
        Op::Send(batches) => machine.send(batches),
        Op::Arrive(random) => {
            let mut small = small(random);
            machine.arrive(|| (small(), small()), world);
        }
        Op::Cursor => machine.cursor(world),
        Op::Producer(split) => machine.new_producer(split, world),
        Op::Restart => *machine = Machine::start(machine.stop(world), world),
        Op::Backup => {
            if backups.len() == BACKUPS_MAX {
                backups.remove(0).lose();
            }
            backups.push(machine.disk.copy(world));
        }
        Op::Restore(backup) => {
            let Some(backup) = backups.get(backup) else { return };
            machine.stop(world).lose();
            *machine = Machine::start(backup.copy(world), world);
        }
        Op::Clone(to) => {
            let clone = Machine::start(machine.disk.copy(world), world);
            if machines.len() < MACHINES_MAX {
                machines.push(clone);
            } else {
                std::mem::replace(&mut machines[to], clone).stop(world).lose();
            }
        }
        Op::GiveUp => machine.give_up(world),
        Op::Late(random) => world.arrive_late(small(random)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]
    /// What must hold:
    /// - No value is accepted twice. No two values have one identity (stream, topic, partition, number).
    /// - The numbers of a line are accepted in rising order, from 0 on, with no holes but for what some disk gave up.
    /// - What was committed on a disk that is there at the end, and was not given up there, is accepted once.
    /// - A stream is closed only when all that this disk has of it came to the cloud, or was given up here.
    ///
    /// What does not hold, and why:
    /// - What was committed after the backup that was restored, or on a disk that another one replaced, and was not
    ///   delivered before, is lost: it stood on the lost disk only.
    /// - What was given up may be accepted, as it may have been on its way, or stand on a copy of the disk.
    /// - What another copy gave up (the disk before its backup was restored, or a clone) is *dropped as a repeat* when it
    ///   comes from here after the other copy sent a later number of the same line. So a reading can be lost although
    ///   a living disk holds it, and when the other copy was lost before its gap was sent, nobody is told.
    /// - The other copy may go on with a stream that is closed from here: closing speaks for one disk.
    #[test]
    fn any_life_of_any_copy_reaches_the_cloud_once(
        ops in prop::collection::vec((0..MACHINES_MAX, op()), 1..80),
        live_first in any::<bool>(),
    ) {
        let mut world = World::new(live_first);
        let first = Disk { folder: world.new_folder(), ..Disk::default() };
        let (mut machines, mut backups) = (vec![Machine::start(first, &mut world)], Vec::new());
        for (at, op) in ops {
            step(at, op, &mut machines, &mut backups, &mut world);
        }
        for machine in &mut machines {
            *machine = Machine::start(machine.stop(&mut world), &mut world);
            machine.drain(&mut world);
        }
        world.arrive_late(|| usize::MAX);
    }
}
