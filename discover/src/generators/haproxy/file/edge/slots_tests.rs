use std::cell::Cell;

use super::*;
use proptest::prelude::*;

fn place(name: &str) -> Place {
    Place::sni(format!("{name}.example").parse().unwrap())
}

fn places(of: &[&str]) -> Vec<Place> {
    of.iter().map(|name| place(name)).collect()
}

/// Needs of upstreams with one place each.
fn single(places: &[Place], kind: Kind) -> Vec<Need<'_>> {
    places.chunks(1).map(|places| Need { places, kind }).collect()
}

fn assign(needs: &[Need<'_>], held: &HashMap<Place, u32>, running: &BTreeMap<u32, Kind>, adds: bool) -> Slots {
    Slots::assign(needs, [].iter(), held, running, |_, _| Runs::Nothing, adds)
}

/// The sections of the places in their order.
fn numbers(slots: &Slots) -> Vec<u32> {
    BTreeMap::from_iter(&*slots.of).into_values().copied().collect()
}

#[test]
fn a_place_keeps_its_section_and_a_new_one_takes_a_spare_one() {
    let (held, running) = (HashMap::from_iter([(place("b"), 2)]), (1..=3).map(|n| (n, Kind::Whole)).collect());
    let all = places(&["a", "b", "c", "d"]);
    let slots = assign(&single(&all[..3], Kind::Plain), &held, &running, false);
    assert_eq!(numbers(&slots), [1, 2, 3]);
    assert_eq!((slots.all.len(), slots.spare()), (3, 0), "no change of the structure");
    let more = assign(&single(&all, Kind::Plain), &slots.of, &running, false);
    assert_eq!((more.of[&all[3]], more.all[&4]), (4, Kind::Whole));
    let refilled = more.refilled(2);
    assert_eq!((refilled.all.len(), refilled.spare()), (6, 2));
}

#[test]
fn where_haproxy_makes_sections_the_spare_ones_are_left_to_sticky_places() {
    let running = (1..=2).map(|n| (n, Kind::Whole)).collect();
    let all = places(&["plain", "sticky"]);
    let needs = [Need { places: &all[..1], kind: Kind::Plain }, Need { places: &all[1..], kind: Kind::Whole }];
    let slots = assign(&needs, &HashMap::new(), &running, true);
    assert_eq!((slots.of[&all[0]], slots.of[&all[1]], slots.spare()), (3, 1, 1));
    assert_eq!(slots.all[&3], Kind::Plain);
    // A plain one that becomes sticky moves; its section is free for the next one, or goes.
    let moved = assign(&single(&all, Kind::Whole), &slots.of, &slots.all, true);
    assert_eq!((moved.of[&all[0]], moved.of[&all[1]], moved.all.len()), (2, 1, 3));
    assert_eq!(moved.clone().without_idle(|number| number == 3), moved, "its servers are still there");
    assert_eq!(moved.clone().without_idle(|_| false).all.len(), 2);
    let new = places(&["new"]);
    assert_eq!(assign(&single(&new, Kind::Plain), &HashMap::new(), &moved.all, true).of[&new[0]], 3);
    // One that needs no stickiness any more stays where it is.
    assert_eq!(assign(&single(&all, Kind::Plain), &moved.of, &moved.all, true).of, moved.of);
}

#[test]
fn places_of_one_upstream_share_a_section_and_part_when_their_upstreams_do() {
    let (all, running) = (places(&["a", "b"]), (1..=3).map(|n| (n, Kind::Whole)).collect());
    let together = assign(&[Need { places: &all, kind: Kind::Plain }], &HashMap::new(), &running, false);
    assert_eq!(numbers(&together), [1, 1]);
    let apart = assign(&single(&all, Kind::Plain), &together.of, &running, false);
    assert_eq!(numbers(&apart), [1, 2]);
}

#[test]
fn a_place_moves_only_to_where_nobody_but_its_own_servers_run() {
    let (all, running): (_, BTreeMap<u32, Kind>) = (places(&["a", "b"]), (1..=3).map(|n| (n, Kind::Whole)).collect());
    let (apart, at_1): (HashMap<Place, u32>, HashMap<Place, u32>) =
        (HashMap::from_iter([(place("a"), 1), (place("b"), 2)]), HashMap::from_iter([(place("a"), 1)]));
    for (kind, runs, held, expected) in [
        // Those that have sections.
        (Kind::Plain, Runs::Some, &apart, [1, 2]),
        (Kind::Plain, Runs::Foreign, &apart, [1, 2]),
        (Kind::Plain, Runs::All, &apart, [1, 1]),
        (Kind::Whole, Runs::All, &apart, [1, 2]),
        // One that comes.
        (Kind::Plain, Runs::Some, &at_1, [1, 1]),
        (Kind::Plain, Runs::All, &at_1, [1, 1]),
        (Kind::Plain, Runs::Foreign, &at_1, [1, 3]),
        (Kind::Whole, Runs::Foreign, &at_1, [1, 3]),
    ] {
        let busy = |number, upstream: Option<usize>| match (number, upstream) {
            (3, _) => Runs::Nothing,
            (_, None) => Runs::Foreign,
            (_, Some(_)) => runs,
        };
        let need = [Need { places: &all, kind }];
        let slots = Slots::assign(&need, [].iter(), held, &running, busy, false);
        assert_eq!(numbers(&slots), expected, "{kind:?} {runs:?} {held:?}");
    }
}

#[test]
fn a_place_that_waits_keeps_its_section_unless_it_is_somebodys() {
    let (all, running) = (places(&["a", "b"]), (1..=2).map(|n| (n, Kind::Whole)).collect());
    let of = |held: [u32; 2]| {
        let held: HashMap<Place, u32> = all.iter().cloned().zip(held).collect();
        let needs = single(&all[..1], Kind::Plain);
        let slots = Slots::assign(&needs, all[1..].iter(), &held, &running, |_, _| Runs::Nothing, false);
        (slots.of.get(&all[1]).copied(), slots.spare())
    };
    assert_eq!((of([1, 2]), of([1, 1])), ((Some(2), 0), (None, 1)));
}

#[test]
fn what_is_in_a_section_is_asked_only_where_a_place_comes() {
    let (all, asked) = (places(&["a", "b"]), Cell::new(0));
    let held: HashMap<Place, u32> = all.iter().cloned().zip(1..).collect();
    let runs = |_, _| {
        asked.set(asked.get() + 1);
        Runs::Nothing
    };
    let running = (1..=9).map(|n| (n, Kind::Whole)).collect();
    Slots::assign(&single(&all, Kind::Plain), [].iter(), &held, &running, runs, false);
    assert_eq!(asked.get(), 0);
}

proptest! {
    #[test]
    fn no_two_upstreams_share_a_section_and_equal_input_changes_nothing(
        raw in prop::collection::btree_map("[a-h]", (0usize..4, any::<bool>()), 0..8), held in prop::collection::btree_map("[a-h]", 1u32..5, 0..5),
        running in prop::collection::btree_map(1u32..6, any::<bool>(), 0..6), adds in any::<bool>(),
    ) {
        let kind = |whole: bool| if whole { Kind::Whole } else { Kind::Plain };
        let mut upstreams: BTreeMap<usize, (Vec<Place>, bool)> = BTreeMap::new();
        for (name, (upstream, sticky)) in &raw {
            let (places, whole) = upstreams.entry(*upstream).or_default();
            places.push(place(name));
            *whole |= sticky;
        }
        let needs: Vec<Need<'_>> = upstreams.values().map(|(places, whole)| Need { places, kind: kind(*whole) }).collect();
        let held: HashMap<Place, u32> = held.into_iter().map(|(name, n)| (place(&name), n)).collect();
        let running: BTreeMap<u32, Kind> = running.into_iter().map(|(n, whole)| (n, kind(whole || !adds))).collect();
        let slots = assign(&needs, &held, &running, adds);
        prop_assert_eq!(slots.of.len(), raw.len());
        let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
        for (upstream, need) in needs.iter().enumerate() {
            for place in need.places {
                let number = slots.of[place];
                prop_assert_eq!(*owners.entry(number).or_insert(upstream), upstream);
                prop_assert!(slots.all[&number] >= need.kind);
            }
        }
        prop_assert!(running.iter().all(|(number, kind)| slots.all.get(number) == Some(kind)));
        prop_assert!(adds || slots.all.values().all(|kind| *kind == Kind::Whole));
        prop_assert_eq!(&assign(&needs, &slots.of, &slots.all, adds), &slots);
        let refilled = slots.clone().refilled(3);
        prop_assert_eq!((&refilled.of, refilled.spare()), (&slots.of, 3));
        prop_assert!(slots.of.values().all(|number| refilled.all[number] == slots.all[number]));
    }
}
