use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::adapters::testing::{Call, Shelf, bare, forwards, history, now, play};
use crate::codec::Postcard;
use crate::entry::Freshness;
use crate::ext::StoreExt;
use crate::memory::Memory;
use crate::testkit::{Fault, Faulty, Model, Sim, explore, schedules};
use crate::time::ManualClock;

/// Tags that a matching by prefix, pattern or separator would mix up.
const TAGS: [&str; 9] = ["a", "a:", "ab", "a,ab", "*", "?", "removed:a", "\0", "ü"];

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn entry(created: u64, tags: &[&str]) -> Entry<String> {
    let life = Lifetime::new(at(created), at(created + 50), at(created + 60), at(created + 90));
    Entry::new(format!("{created}"), life).with_tags(tags.iter().copied())
}

fn over<T>(tag_store: T, clock: &ManualClock) -> Tagged<Shelf<str, String>, T> {
    Tagged::new(Shelf::new(), tag_store).clock(clock.clone())
}

fn tag_store() -> Shelf<str, Timestamp> {
    Shelf::new()
}

/// An instant that is never, nor the epoch.
fn nanos() -> impl Strategy<Value = u64> {
    1..60u64
}

fn tags() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(TAGS.to_vec(), 0..4)
}

#[derive(Clone, Debug)]
enum Step {
    Set(&'static str, u64, Vec<&'static str>),
    Invalidate(Kind, Vec<&'static str>, u64),
    Read(&'static str, u64, u8),
    /// The tag store forgets everything.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || select(vec!["k", "l"]);
    let kind = select(vec![Kind::Removed, Kind::Expired]);
    prop_oneof![
        3 => (key(), nanos(), tags()).prop_map(|(key, nanos, tags)| Step::Set(key, nanos, tags)),
        2 => (kind, tags(), nanos()).prop_map(|(kind, tags, nanos)| Step::Invalidate(kind, tags, nanos)),
        5 => (key(), nanos(), 0..4u8).prop_map(|(key, nanos, how)| Step::Read(key, nanos, how)),
        1 => Just(Step::Forget),
    ]
}

/// The simplest thing that keeps T1.
#[derive(Default)]
struct Truth {
    held: BTreeMap<&'static str, Entry<String>>,
    removed: BTreeMap<&'static str, Timestamp>,
    expired: BTreeMap<&'static str, Timestamp>,
}

impl Truth {
    fn invalidate(&mut self, kind: Kind, tags: &[&'static str], instant: Timestamp) {
        let instants = if kind == Kind::Removed { &mut self.removed } else { &mut self.expired };
        for tag in tags {
            let held = instants.entry(tag).or_insert(instant);
            *held = instant.max(*held);
        }
    }

    fn of(&self, key: &str, now: Timestamp) -> Option<Entry<String>> {
        let entry = self.held.get(key)?.clone();
        let reached = |instants: &BTreeMap<&str, Timestamp>| {
            let of = |tag: &Arc<str>| instants.get(&**tag).copied();
            entry.tags().iter().filter_map(of).max().filter(|instant| entry.created_at() <= *instant)
        };
        if reached(&self.removed).is_some() {
            return None;
        }
        match reached(&self.expired) {
            None => Some(entry),
            Some(expired) => {
                let life = entry.lifetime().not_fresh_at(expired, now)?;
                Some(entry.with_lifetime(life))
            }
        }
    }
}

#[expect(clippy::option_option, reason = "a peek that does not answer says nothing of the entry")]
fn read<T: Store<Key = str, Value = Timestamp>>(
    store: &Tagged<Shelf<str, String>, T>,
    key: &str,
    at: Timestamp,
    how: u8,
) -> Option<Option<Entry<String>>> {
    match how {
        0 => Some(now(store.get(key)).unwrap()),
        1 => Some(now(store.get_at(key, at)).unwrap()),
        2 => Some(now(store.get_many(&["other", key], at)).pop()?.unwrap()),
        _ => store.peek(key).map(Some),
    }
}

proptest! {
    /// D1, S11: with nothing invalidated it is not there.
    #[test]
    fn d1_with_nothing_invalidated_it_changes_nothing(history in history()) {
        let tagged = |history: &[Call]| {
            let store = over(tag_store(), &ManualClock::default()).max_age(Duration::MAX).unwrap();
            play(&store, history)
        };
        crate::adapters::testing::alike(bare, tagged, &history)?;
    }

    /// T1: what is read is what the tags of the entry say, and nothing else. The process knows every
    /// instant, so it does not matter what the tag store forgets.
    #[test]
    fn t1_an_entry_is_judged_by_its_own_tags_and_instants(steps in prop::collection::vec(step(), 0..40)) {
        let clock = ManualClock::default();
        let store = over(Model::<str, Timestamp>::new(), &clock);
        let mut truth = Truth::default();
        for step in steps {
            match step {
                Step::Set(key, nanos, tags) => {
                    now(store.set(key, entry(nanos, &tags))).unwrap();
                    truth.held.insert(key, entry(nanos, &tags));
                }
                Step::Invalidate(kind, tags, nanos) => {
                    now(invalidate(&store, kind, &tags, nanos)).unwrap();
                    truth.invalidate(kind, &tags, at(nanos));
                }
                Step::Read(key, nanos, how) => {
                    clock.set(at(nanos));
                    let expected = truth.of(key, at(nanos));
                    match read(&store, key, at(nanos), how) {
                        Some(found) => prop_assert_eq!(found, expected),
                        None => prop_assert_eq!(None, expected),
                    }
                }
                Step::Forget => now(store.tag_store().clear()).unwrap(),
            }
        }
    }

    /// T2: with a table of a few tags and a tag store that forgets, more may be absent, and nothing comes
    /// back.
    #[test]
    fn t2_what_the_table_and_the_tag_store_forget_does_not_come_back(
        steps in prop::collection::vec(step(), 0..60), most in 1..5usize,
    ) {
        let clock = ManualClock::default();
        let store = over(Model::<str, Timestamp>::new(), &clock).known_tags(most).unwrap();
        let mut truth = Truth::default();
        for step in steps {
            match step {
                Step::Set(key, nanos, tags) => {
                    now(store.set(key, entry(nanos, &tags))).unwrap();
                    truth.held.insert(key, entry(nanos, &tags));
                }
                Step::Invalidate(kind, tags, nanos) => {
                    now(invalidate(&store, kind, &tags, nanos)).unwrap();
                    truth.invalidate(kind, &tags, at(nanos));
                }
                Step::Read(key, nanos, how) => {
                    clock.set(at(nanos));
                    let expected = truth.of(key, at(nanos));
                    if let Some(Some(found)) = read(&store, key, at(nanos), how) {
                        prop_assert_eq!(Some(&found), expected.as_ref(), "floor {:?}", store.stats().floor);
                    }
                    if expected.as_ref().is_some_and(|entry| entry.tags().is_empty()) {
                        prop_assert_eq!(now(store.get(key)).unwrap(), expected, "no tag, no floor");
                    }
                }
                Step::Forget => now(store.tag_store().clear()).unwrap(),
            }
        }
        prop_assert!(store.stats().known_tags <= most as u64);
    }

    /// T3: one that failed in parts holds for everyone, also after a start anew, when it was repeated.
    #[test]
    fn t3_a_failed_invalidation_holds_once_it_was_repeated(
        faults in prop::collection::vec((0..6u64, 0..3usize), 0..4), tags in subsequence(TAGS.to_vec(), 1..4),
    ) {
        let clock = ManualClock::new(at(100));
        let faulty = Faulty::new(Model::<str, Timestamp>::new());
        faulty.faults().yields(0, 0);
        for (call, fault) in faults {
            let fault = [Fault::FailBefore, Fault::FailAfter, Fault::Refuse][fault];
            faulty.faults().on(Operation::Set, call, fault);
        }
        let store = over(&faulty, &clock);
        now(store.set("before", entry(5, &tags))).unwrap();
        now(store.set("after", entry(6, &tags))).unwrap();
        let mut tries = 0;
        while now(store.remove_tags(&tags, at(5))).is_err() {
            prop_assert_eq!(now(store.get_at("before", at(7))).ok().flatten(), None, "here at once");
            tries += 1;
            prop_assert!(tries < 10);
        }
        prop_assert_eq!(store.stats().failed_invalidations, tries);
        let anew = Tagged::new(&store.inner, &faulty).clock(clock);
        for store in [&Tagged::new(&store.inner, &faulty).clock(ManualClock::new(at(100))), &anew] {
            prop_assert_eq!(now(store.get("before")).unwrap(), None);
            prop_assert_eq!(now(store.get("after")).unwrap(), Some(entry(6, &tags)));
        }
    }

    /// T3: of two invalidations of one tag the later instant stays in the tag store, however they are raced.
    #[test]
    fn t3_an_older_instant_never_replaces_a_newer_one(schedule in schedules(40), older in 1..9u64, newer in 1..9u64) {
        race_of_two_writers(&mut Sim::new(schedule), older, newer);
    }
}

fn race_of_two_writers(sim: &mut Sim, older: u64, newer: u64) {
    let instants = Arc::new(Faulty::new(Model::<str, Timestamp>::new()));
    let store = Arc::new(Tagged::new(Shelf::<str, String>::new(), Arc::clone(&instants)));
    for nanos in [older, newer] {
        let store = Arc::clone(&store);
        sim.spawn(format!("{nanos}"), async move { store.remove_tags(&["a"], at(nanos)).await.unwrap() });
    }
    sim.run();
    assert_eq!(instants.inner().held("removed:a").map(Entry::into_value), Some(at(older.max(newer))));
}

#[test]
fn t3_the_same_with_every_pair_of_preemptions() {
    explore(2, 100_000, |sim| race_of_two_writers(sim, 5, 7));
}

async fn invalidate<S: InvalidateTags>(store: &S, kind: Kind, tags: &[&str], nanos: u64) -> Result<()> {
    match kind {
        Kind::Removed => store.remove_tags(tags, at(nanos)).await,
        Kind::Expired => store.expire_tags(tags, at(nanos)).await,
    }
}

#[test]
fn t1_an_invalidation_of_the_same_instant_reaches_and_one_before_does_not() {
    for (instant, reached) in [(4, false), (5, true), (6, true)] {
        let clock = ManualClock::new(at(5));
        let store = over(tag_store(), &clock);
        now(store.set("k", entry(5, &["x", "a"]))).unwrap();
        now(store.expire_tags(&["a"], at(instant))).unwrap();
        let found = now(store.get_at("k", at(5))).unwrap().unwrap();
        assert_eq!(found.freshness(at(5)) > Freshness::Fresh, reached, "expired at {instant}");
        now(store.remove_tags(&["a"], at(instant))).unwrap();
        assert_eq!(now(store.get_at("k", at(5))).unwrap().is_none(), reached, "removed at {instant}");
    }
}

/// T1: the tags that count are those of the entry that is there.
#[test]
fn t1_tags_of_a_replaced_entry_are_gone() {
    let store = over(tag_store(), &ManualClock::new(at(9)));
    now(store.set("k", entry(5, &["old"]))).unwrap();
    now(store.set("k", entry(5, &["new"]))).unwrap();
    now(store.remove_tags(&["old"], at(9))).unwrap();
    assert!(now(store.get("k")).unwrap().is_some());
}

/// T2, S7: an instant that another process wrote later is not replaced, and one that is corrupt is.
#[test]
fn t2_what_another_process_wrote_counts_also_for_the_next_write() {
    let instants = Model::<str, Timestamp>::new();
    now(Tagged::new(Shelf::<str, String>::new(), &instants).expire_tags(&["a"], at(50))).unwrap();
    let store = over(&instants, &ManualClock::new(at(60)));
    now(store.set("k", entry(40, &["a"]))).unwrap();
    now(store.expire_tags(&["a"], at(30))).unwrap();
    assert_eq!(instants.held("expired:a").map(Entry::into_value), Some(at(50)));
    assert!(now(store.get("k")).unwrap().unwrap().freshness(at(60)) > Freshness::Fresh);

    let faulty = Faulty::new(instants);
    faulty.faults().yields(0, 0);
    faulty.faults().on(Operation::Get, 0, Fault::Corrupt);
    let store = over(&faulty, &ManualClock::new(at(60)));
    now(store.remove_tags(&["b"], at(30))).unwrap();
    assert_eq!(faulty.inner().held("removed:b").map(Entry::into_value), Some(at(30)));
}

/// T2: a process that has only heard of its own invalidation asks for the others.
#[test]
fn t2_an_invalidation_of_one_kind_says_nothing_of_the_other() {
    let instants = Faulty::new(Model::<str, Timestamp>::new());
    instants.faults().yields(0, 0);
    now(Tagged::new(Shelf::<str, String>::new(), &instants).remove_tags(&["a"], at(50))).unwrap();
    let store = over(&instants, &ManualClock::new(at(60)));
    now(store.set("k", entry(40, &["a"]))).unwrap();
    instants.faults().down();
    now(store.expire_tags(&["a"], at(30))).unwrap_err();
    instants.faults().up();
    assert_eq!(store.peek("k"), None, "not known to be valid");
    assert_eq!(now(store.get("k")).unwrap(), None);
}

#[test]
fn t4_without_the_tag_store_a_tagged_entry_is_not_served_unless_told() {
    for open in [false, true] {
        let instants = Faulty::new(Model::<str, Timestamp>::new());
        instants.faults().yields(0, 0);
        let store = over(&instants, &ManualClock::new(at(9)));
        let store = if open { store.open_on_failure() } else { store };
        now(store.set("known", entry(5, &["a"]))).unwrap();
        now(store.set("plain", entry(5, &[]))).unwrap();
        instants.faults().down();
        now(store.set("k", entry(5, &["a", "b"]))).unwrap();
        assert_eq!(now(store.get("plain")).unwrap(), Some(entry(5, &[])));
        assert_eq!(now(store.get("known")).unwrap(), Some(entry(5, &["a"])));
        let many = now(store.get_many(&["plain", "k", "known"], at(9)));
        assert!(many[0].is_ok() && many[2].is_ok(), "a key that fails takes no other along");
        assert_eq!(now(store.get("k")).is_ok(), open);
        assert_eq!(many[1].is_ok(), open);
        assert_eq!(store.stats().unjudged, if open { 2 } else { 0 });
        assert_eq!(store.peek("k"), None);
        now(store.remove_tags(&["b"], at(6))).unwrap_err();
        assert_eq!(now(store.get("k")).unwrap(), None, "known to be removed, whatever else is not");
        instants.faults().up();
        now(store.remove_tags(&["b"], at(6))).unwrap();
        assert!(store.stats().failures > 0);
    }
}

/// T5, by counting: an invalidation is one write, and a first read one question, however many entries,
/// keys and tags there are.
#[test]
fn t5_an_invalidation_is_one_write_and_a_first_read_one_question() {
    let entries = std::env::var("LARDER_TAGGED").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000u64);
    let clock = ManualClock::new(at(9));
    let store =
        Tagged::new(Memory::<u64, u64>::new(usize::try_from(2 * entries).unwrap()), tag_store()).clock(clock);
    for key in 0..entries {
        let entry = Entry::new(key, Lifetime::forever(at(5))).with_tags(["all", "b", "c"]);
        now(store.set(&key, entry)).unwrap();
    }
    let held = store.len().unwrap();
    assert!(held >= entries * 9 / 10, "{held}");
    assert_eq!(store.instants.calls(), ["get_many"], "the first write asks for all of its tags at once");
    let anew = Tagged::new(&store.inner, &store.instants).clock(ManualClock::new(at(9)));
    now(anew.get_many(&[&1, &2, &3], at(9)));
    now(anew.get(&4)).unwrap();
    assert_eq!(store.instants.calls(), ["get_many"], "so does the first reader");
    for key in 0..1_000 {
        store.peek(&key);
        now(store.get(&key)).unwrap();
    }
    assert_eq!(store.instants.calls(), Vec::<&str>::new(), "known");
    now(store.remove_tags(&["all", "b"], at(6))).unwrap();
    assert_eq!(store.instants.calls(), ["set_many"], "several tags are one write");
    now(store.remove_tags(&["new"], at(6))).unwrap();
    assert_eq!(store.instants.calls(), ["get_many", "set_many"]);
    assert!((0..entries).all(|key| store.peek(&key).is_none()));
    assert_eq!(store.instants.calls(), Vec::<&str>::new());
    assert_eq!(store.len(), Some(held), "their room is freed later");
}

#[test]
fn t5_an_entry_without_tags_asks_nobody() {
    let store = over(tag_store(), &ManualClock::new(at(9)));
    now(store.set("k", entry(5, &[]))).unwrap();
    now(store.remove_tags(&["a"], at(8))).unwrap();
    store.instants.calls();
    assert!(now(store.get("k")).unwrap().is_some() && store.peek("k").is_some());
    assert!(now(store.get_many(&["k"], at(9)))[0].is_ok());
    assert_eq!(store.instants.calls(), Vec::<&str>::new());
}

/// T2: a tag store may drop an instant when every entry that it reaches is too old.
#[test]
fn what_is_older_than_the_age_is_absent_and_an_instant_lives_as_long() {
    let clock = ManualClock::new(at(5));
    let store = over(Model::<str, Timestamp>::new(), &clock).max_age(Duration::from_nanos(10)).unwrap();
    now(store.set("k", entry(5, &["a"]))).unwrap();
    now(store.set("plain", entry(5, &[]))).unwrap();
    now(store.remove_tags(&["b"], at(7))).unwrap();
    let instant = store.instants.held("removed:b").unwrap();
    assert_eq!(instant.lifetime().keep_until(), at(17));
    for (nanos, there) in [(15, true), (16, false)] {
        clock.set(at(nanos));
        assert_eq!(now(store.get("k")).unwrap().is_some(), there);
        assert_eq!(store.peek("k").is_some(), there);
        assert!(store.peek("plain").is_some());
    }
}

#[test]
fn clear_by_instant_is_one_write_and_reaches_entries_without_tags() {
    let clock = ManualClock::new(at(5));
    let store = over(tag_store(), &clock).clear_by_instant();
    now(store.set("k", entry(5, &["a"]))).unwrap();
    now(store.set("ahead", entry(7, &[]))).unwrap();
    assert!(now(store.get("ahead")).unwrap().is_some());
    store.inner.calls();
    now(store.clear()).unwrap();
    assert_eq!(store.inner.calls(), Vec::<&str>::new());
    assert_eq!(store.len(), None);
    for key in ["k", "ahead"] {
        assert_eq!((now(store.get(key)).unwrap(), store.peek(key)), (None, None), "{key}");
    }
    now(store.set("k", entry(8, &[]))).unwrap();
    assert!(now(store.get("k")).unwrap().is_some());
    let anew = Tagged::new(&store.inner, &store.instants).clock(clock).clear_by_instant();
    assert_eq!(now(anew.get("ahead")).unwrap(), None);
}

#[test]
fn a_setting_or_a_tag_that_makes_no_sense_is_refused_by_name() {
    let store = || over(tag_store(), &ManualClock::default());
    let wrong = [
        ("known_tags", store().known_tags(0).map(drop)),
        ("max_age", store().max_age(Duration::ZERO).map(drop)),
        ("tag", now(store().remove_tags(&["a", ""], at(1)))),
        ("tag", now(store().expire_tags(&[""], at(1)))),
    ];
    for (culprit, outcome) in wrong {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("invalid input: {culprit}: ")), "{error}");
    }
    let store = store();
    now(store.remove_tags(&[], at(1))).unwrap();
    assert_eq!(store.instants.calls(), Vec::<&str>::new());
    let long = "x".repeat(64 << 10);
    now(store.set("k", entry(5, &[&long]))).unwrap();
    now(store.remove_tags(&[&long], at(5))).unwrap();
    assert_eq!(now(store.get("k")).unwrap(), None);
}

/// T3: a tag store that does not take the instant has not acknowledged it.
#[test]
fn t3_a_refusal_of_the_tag_store_is_an_error() {
    let store = over(crate::adapters::Null::new(), &ManualClock::default());
    assert_eq!(now(store.remove_tags(&["a"], at(1))).unwrap_err().kind(), ErrorKind::Full);
}

/// D3.
#[test]
fn every_call_is_one_call_to_the_store_inside() {
    let store = over(tag_store(), &ManualClock::default());
    forwards(&store, |store| &store.inner, &[]);
    let described = store.describe();
    assert_eq!(described.to_string().lines().next(), Some("tagged (max_age 2592000s)"));
    assert_eq!(described.layers().len(), 2);
    now(store.remove_tags(&["a"], at(1))).unwrap();
    let described = store.open_on_failure().describe().to_string();
    let told = "tagged (max_age 2592000s, open_on_failure, known tags 1, invalidations 1)";
    assert_eq!(described.lines().next(), Some(told));
}

/// The instants as bytes, and the capability through whatever passes it on.
#[test]
fn t3_instants_outlive_the_process_as_bytes_and_the_capability_passes() {
    let bytes = Memory::<str, bytes::Bytes>::new(100);
    let pages = Shelf::<str, bytes::Bytes>::new();
    for tag in TAGS {
        let store = Box::new(
            (&pages)
                .tagged((&bytes).encoded::<Timestamp, _>(Postcard))
                .inspect(|_| ())
                .fresh_for_at_most(Duration::MAX),
        )
        .encoded::<String, _>(Postcard);
        now(store.set(tag, entry(5, &[tag]))).unwrap();
        now(Arc::new(&store).expire_tags(&[tag], at(4))).unwrap();
        now(store.remove_tags(&[tag], at(5))).unwrap();
    }
    let anew = (&pages).tagged((&bytes).encoded::<Timestamp, _>(Postcard)).clock(ManualClock::new(at(9)));
    for tag in TAGS {
        assert_eq!(now(anew.get(tag)).unwrap(), None, "{tag:?}");
    }
}
