//! The decision against a table of cases, and its laws against random ones.

use proptest::prelude::*;

use super::*;

fn wanted(id: &str, version: u32, due: bool) -> Wanted {
    let effective_at = (!due).then(|| "2099-01-01 00:00:00.000".to_owned());
    Wanted { id: id.to_owned(), version, changed_at: String::new(), effective_at, due }
}

fn stored(keys: &[(&str, u32)]) -> Rows {
    let row = |id: &str, version| RuleRow {
        id: id.to_owned(),
        version,
        kind: "filter".to_owned(),
        spec: "{}".to_owned(),
        priority: 0,
        stands: false,
    };
    keys.iter().map(|(id, version)| (((*id).to_owned(), *version), row(id, *version))).collect()
}

fn force(keys: &[(&str, u32)]) -> Force {
    keys.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect()
}

/// A compiler that refuses the versions named, and gives the versions it took.
fn but(bad: &[(&str, u32)]) -> impl Fn(&[RuleRow]) -> (Force, Vec<Refused>) {
    let bad: Vec<Key> = bad.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect();
    move |rows| {
        let (mut set, mut refused) = (Force::new(), Vec::new());
        for row in rows {
            if bad.contains(&(row.id.clone(), row.version)) {
                refused.push(Refused { id: row.id.clone(), version: row.version, reason: "bad".to_owned() });
            } else {
                set.insert(row.id.clone(), row.version);
            }
        }
        (set, refused)
    }
}

#[test]
fn each_case_by_its_name() {
    let stands = stored(&[("a", 1), ("a", 2), ("a", 3)]);
    type Case<'a> =
        (&'a str, Wanted, &'a [(&'a str, u32)], &'a [(&'a str, u32)], &'a [(&'a str, u32)], &'a str);
    let cases: [Case<'_>; 9] = [
        ("new", wanted("a", 1, true), &[], &[], &[("a", 1)], "active"),
        ("changed", wanted("a", 2, true), &[("a", 1)], &[], &[("a", 2)], "active"),
        ("taken back", wanted("a", 1, true), &[("a", 2)], &[], &[("a", 1)], "active"),
        (
            "refused keeps the last good",
            wanted("a", 2, true),
            &[("a", 1)],
            &[("a", 2)],
            &[("a", 1)],
            "refused",
        ),
        ("refused and nothing before", wanted("a", 2, true), &[], &[("a", 2)], &[], "refused"),
        ("both refused", wanted("a", 2, true), &[("a", 1)], &[("a", 2), ("a", 1)], &[], "refused"),
        ("not due keeps the one before", wanted("a", 3, false), &[("a", 2)], &[], &[("a", 2)], "waiting"),
        ("not due and nothing before", wanted("a", 3, false), &[], &[], &[], "waiting"),
        ("not stored", wanted("a", 9, true), &[("a", 1)], &[], &[("a", 1)], "refused"),
    ];
    for (name, want, before, bad, after, word) in cases {
        let wanted = [want];
        let (decision, set) = decide(&wanted, &stands, &force(before), but(bad));
        assert_eq!(decision.force, force(after), "{name}");
        assert_eq!(set, decision.force, "{name}: what is compiled is what is in force");
        let verdicts = verdicts(&wanted, &decision, &BTreeMap::new());
        let of = &verdicts[&(wanted[0].id.clone(), wanted[0].version)];
        assert_eq!(of.0.word(), word, "{name}: {of:?}");
        assert_eq!(verdicts.len(), 1 + usize::from(word != "active" && !after.is_empty()), "{name}");
    }
}

#[test]
fn a_rule_that_is_not_wanted_is_not_in_force() {
    let rows = stored(&[("a", 1), ("b", 1)]);
    let (decision, _) = decide(&[wanted("b", 1, true)], &rows, &force(&[("a", 1), ("b", 1)]), but(&[]));
    assert_eq!(decision.force, force(&[("b", 1)]));
}

#[test]
fn narrowing_adds_nothing() {
    let rows = stored(&[("a", 1), ("a", 2), ("b", 1)]);
    let (decision, _) = narrow(&rows, &force(&[("a", 2), ("b", 1)]), but(&[("a", 2)]));
    assert_eq!(decision.force, force(&[("b", 1)]));
    assert_eq!(decision.refused.len(), 1);
}

#[test]
fn what_was_decided_is_taken_over_with_reasons_of_ones_own() {
    let rows = stored(&[("a", 1), ("a", 2)]);
    let (wanted, before) = ([wanted("a", 2, true)], force(&[("a", 1)]));
    let key = ("a".to_owned(), 2);
    // It was refused, and this process knows why.
    let (decision, set) = take_over(&wanted, &rows, &before, but(&[("a", 2)]));
    assert_eq!((&decision.force, &set, decision.refused[&key].as_str()), (&before, &before, "bad"));
    // It was refused by another one, and this process could run it: it does not.
    let (decision, set) = take_over(&wanted, &rows, &before, but(&[]));
    assert_eq!((&decision.force, &set), (&before, &before));
    assert!(verdicts(&wanted, &decision, &BTreeMap::new())[&key].1.starts_with("a process cannot run it"));
    // It is in force, and this process cannot run it.
    let (decision, _) = take_over(&wanted, &rows, &force(&[("a", 2)]), but(&[("a", 2)]));
    assert_eq!((decision.force, decision.refused[&key].as_str()), (Force::new(), "bad"));
}

#[test]
fn a_tripped_version_is_said_to_be_and_only_when_it_is_in_force() {
    let rows = stored(&[("a", 1), ("a", 2)]);
    let wanted = [wanted("a", 2, true)];
    let (decision, _) = decide(&wanted, &rows, &force(&[("a", 1)]), but(&[]));
    let trip = |version| BTreeMap::from([(("a".to_owned(), version), "too many failures".to_owned())]);
    let with = verdicts(&wanted, &decision, &trip(2));
    assert_eq!(with[&("a".to_owned(), 2)], (State::Tripped, "too many failures".to_owned()));
    let other = verdicts(&wanted, &decision, &trip(1));
    assert_eq!(other[&("a".to_owned(), 2)].0, State::Active);
}

#[test]
fn the_hashes_see_content_and_time() {
    let rows = stored(&[("a", 1), ("b", 1)]);
    let mut other = rows.clone();
    other.get_mut(&("a".to_owned(), 1)).unwrap().spec = "{ }".to_owned();
    let set = force(&[("a", 1), ("b", 1)]);
    assert_ne!(hash_of_force(&set, &rows), hash_of_force(&set, &other));
    assert_ne!(hash_of_force(&set, &rows), hash_of_force(&force(&[("a", 1)]), &rows));
    let (now, later) = ([wanted("a", 1, true)], [wanted("a", 1, false)]);
    assert_ne!(hash_of_wanted(&now, &rows), hash_of_wanted(&later, &rows));
    assert_ne!(hash_of_wanted(&now, &rows), hash_of_wanted(&now, &other));
    assert_ne!(hash_of_wanted(&now, &rows), hash_of_wanted(&now, &Rows::new()));
    assert_eq!(hash_of_force(&set, &rows).len(), 32);
}

#[test]
fn a_set_reads_back() {
    let set = force(&[("a", 1), ("\"q\"", 4_294_967_295)]);
    assert_eq!(to_json(&force(&[("b", 2), ("a", 1)])), r#"[["a",1],["b",2]]"#);
    assert_eq!(from_json(&to_json(&set)).unwrap(), set);
    assert!(from_json("{}").is_err());
}

#[test]
fn changes_are_named() {
    let (before, after) = (force(&[("a", 1), ("b", 1), ("c", 1)]), force(&[("a", 2), ("b", 1), ("d", 5)]));
    assert_eq!(changed(&before, &after), ["a 1 → 2", "c 1 → off", "d off → 5"]);
}

const IDS: [&str; 3] = ["a", "b", "c"];

prop_compose! {
    fn any_wanted()(picked in prop::collection::btree_map(0..3usize, (1..4u32, any::<bool>()), 0..3)) -> Vec<Wanted> {
        picked.into_iter().map(|(i, (version, due))| wanted(IDS[i], version, due)).collect()
    }
}

prop_compose! {
    fn some_keys()(keys in prop::collection::btree_set((0..3usize, 1..4u32), 0..9)) -> Vec<(&'static str, u32)> {
        keys.into_iter().map(|(i, version)| (IDS[i], version)).collect()
    }
}

prop_compose! {
    fn any_force()(picked in prop::collection::btree_map(0..3usize, 1..4u32, 0..3)) -> Force {
        picked.into_iter().map(|(i, version)| (IDS[i].to_owned(), version)).collect()
    }
}

proptest! {
    #[test]
    fn the_laws_of_the_decision(
        wanted in any_wanted(), there in some_keys(), bad in some_keys(), previous in any_force(),
    ) {
        let rows = stored(&there);
        let (decision, set) = decide(&wanted, &rows, &previous, but(&bad));
        prop_assert_eq!(&set, &decision.force);
        let good = |id: &str, version: u32| {
            there.iter().any(|(i, v)| *i == id && *v == version) && !bad.iter().any(|(i, v)| *i == id && *v == version)
        };
        for w in &wanted {
            // The model: the wanted one when it is due and good, else the one before when that is good.
            let new = (w.due && good(&w.id, w.version)).then_some(w.version);
            let before = previous.get(&w.id).copied().filter(|v| good(&w.id, *v));
            prop_assert_eq!(decision.force.get(&w.id).copied(), new.or(before));
        }
        prop_assert!(decision.force.keys().all(|id| wanted.iter().any(|w| w.id == *id)));
        // Deciding again from what was decided changes nothing: one row per change, however many processes.
        let (again, _) = decide(&wanted, &rows, &decision.force, but(&bad));
        prop_assert_eq!(&again.force, &decision.force);
        // What another process can run of it is never more.
        let (narrowed, _) = narrow(&rows, &decision.force, but(&there));
        prop_assert!(narrowed.force.is_empty());
    }
}
