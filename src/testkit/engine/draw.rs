//! How cases are drawn: hostile ones, with deadlines a tick around now.

use proptest::prelude::*;

use crate::testkit::engine::case::{
    Act, Call, EngineCase, Keys, Knobs, Odd, Own, Plan, Planted, Step, Trouble, Under, Until, Work, Writes,
};

/// What the cases of a law are made of: weights, 0 for never.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flavour {
    /// Of ten cases, how many have one caller and nobody beside.
    pub(crate) alone: u32,
    pub(crate) asks: u32,
    pub(crate) reads: u32,
    pub(crate) writes: u32,
    /// Calls of many keys.
    pub(crate) batches: u32,
    pub(crate) waits: u32,
    pub(crate) jumps: u32,
    pub(crate) faults: u32,
    pub(crate) hangs: u32,
    pub(crate) slow: u32,
    pub(crate) closes: u32,
    /// Computations that fail, panic, hang, answer `unchanged`.
    pub(crate) fails: u32,
    pub(crate) panics: u32,
    pub(crate) never_ends: u32,
    pub(crate) unchanged: u32,
    /// Callers that go away.
    pub(crate) leaves: bool,
    pub(crate) races: bool,
    pub(crate) bypass: bool,
    /// Origins in trouble: absences, errors that are remembered, patience, a limit on loads.
    pub(crate) absences: bool,
    pub(crate) errors: bool,
    pub(crate) patience: bool,
    pub(crate) limit: bool,
    pub(crate) keys: u8,
    pub(crate) start: Start,
    /// Computations and writes take longer than elsewhere.
    pub(crate) slow_work: bool,
    /// Whether every cache refreshes early, and every budget has a rate; elsewhere some do.
    pub(crate) early: bool,
    pub(crate) rates: bool,
}

/// What the first keys are at the beginning: weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    none: u32,
    /// Some ticks beside now, in every window.
    near: u32,
    /// Stale, for minutes.
    stale: u32,
    /// Kept for the case that a computation fails, for minutes.
    kept: u32,
    /// Stale for minutes, and then kept for minutes.
    both: u32,
    /// Fresh for some seconds, and due for an early refresh.
    due: u32,
}

impl Start {
    pub(crate) const ANYHOW: Self = Self { none: 4, near: 4, stale: 1, kept: 1, both: 0, due: 0 };
    pub(crate) const STALE: Self = Self { none: 1, near: 1, stale: 5, kept: 0, both: 1, due: 0 };
    pub(crate) const KEPT: Self = Self { none: 1, near: 4, stale: 0, kept: 3, both: 2, due: 0 };
    pub(crate) const DUE: Self = Self { none: 1, near: 3, stale: 1, kept: 0, both: 0, due: 5 };
    pub(crate) const MIXED: Self = Self { none: 3, near: 1, stale: 3, kept: 0, both: 0, due: 0 };
    pub(crate) const MOSTLY_NONE: Self = Self { none: 8, near: 0, stale: 2, kept: 1, both: 0, due: 0 };
}

impl Flavour {
    pub(crate) const PLAIN: Self = Self {
        alone: 5,
        asks: 8,
        reads: 2,
        writes: 2,
        batches: 0,
        waits: 4,
        jumps: 0,
        faults: 0,
        hangs: 0,
        slow: 0,
        closes: 0,
        fails: 1,
        panics: 0,
        never_ends: 0,
        unchanged: 0,
        leaves: false,
        races: false,
        bypass: false,
        absences: false,
        errors: false,
        patience: false,
        limit: false,
        keys: 2,
        start: Start::ANYHOW,
        slow_work: false,
        early: false,
        rates: false,
    };
}

fn weighted<T: Clone + std::fmt::Debug + 'static>(options: Vec<(u32, BoxedStrategy<T>)>) -> BoxedStrategy<T> {
    proptest::strategy::Union::new_weighted(options.into_iter().filter(|(weight, _)| *weight > 0).collect())
        .boxed()
}

fn mostly(zero: u32, rest: std::ops::Range<u8>) -> BoxedStrategy<u8> {
    prop_oneof![zero => Just(0u8), 1 => rest].boxed()
}

fn owns(flavour: Flavour) -> BoxedStrategy<Own> {
    let some = (mostly(1, 1..4), mostly(1, 1..4), mostly(1, 1..4), any::<bool>())
        .prop_map(|(ttl, stale, keep, extras)| Own { ttl, stale, keep, extras, absent: false });
    let owns = prop_oneof![2 => Just(Own::default()), 1 => some].boxed();
    if !flavour.absences {
        return owns;
    }
    (owns, proptest::bool::weighted(0.6)).prop_map(|(own, absent)| Own { absent, ..own }).boxed()
}

fn plans(flavour: Flavour) -> BoxedStrategy<Plan> {
    let work = weighted(vec![
        (4, Just(Work::Answer).boxed()),
        (flavour.fails, Just(Work::Fail).boxed()),
        (flavour.panics, Just(Work::Panic).boxed()),
        (flavour.never_ends, Just(Work::Hang).boxed()),
        (flavour.unchanged, Just(Work::Unchanged).boxed()),
    ]);
    let takes = prop_oneof![2 => Just(0u8), if flavour.slow_work { 3 } else { 1 } => 1..4u8];
    let yields = prop_oneof![2 => Just(0u8), 2 => 1..3u8, 1 => 3..8u8];
    let patience = if flavour.patience { mostly(1, 1..8) } else { Just(0).boxed() };
    (work, yields, takes, owns(flavour), mostly(2, 1..3), patience)
        .prop_map(|(work, yields, takes, own, way, patience)| Plan {
            work,
            yields,
            takes,
            own,
            patience,
            way,
        })
        .boxed()
}

fn untils(flavour: Flavour) -> BoxedStrategy<Until> {
    if flavour.errors {
        // The ends of remembered errors, and a tick beside them.
        return prop_oneof![
            1 => Just(Until::Tick),
            1 => prop_oneof![Just(1u8), Just(4), Just(9)].prop_map(Until::Seconds),
            6 => (mostly(3, 0..2), prop_oneof![2 => Just(0i8), 3 => Just(1), 1 => Just(-1)])
                .prop_map(|(key, off)| Until::Error(key, off)),
        ]
        .boxed();
    }
    let (keys, early) = (flavour.keys, flavour.early);
    let edge = (
        mostly(2, 0..keys.max(1)),
        weighted(vec![
            (1, (0..2u8).boxed()),
            (1, Just(2).boxed()),
            (if early { 5 } else { 0 }, Just(3).boxed()),
        ]),
        prop_oneof![Just(0i8), Just(1), Just(-1)],
    );
    // Two seconds are long enough for another early refresh, and not for one that takes three.
    let seconds = weighted(vec![
        (if early { 8 } else { 0 }, Just(2u8).boxed()),
        (4, prop_oneof![Just(1u8), Just(11), Just(61), Just(121)].boxed()),
    ]);
    prop_oneof![
        1 => Just(Until::Tick),
        if early { 3 } else { 1 } => seconds.prop_map(Until::Seconds),
        6 => edge.prop_map(|(key, edge, off)| Until::Edge(key, edge, off)),
        1 => (any::<bool>(), -1..2i8).prop_map(|(refresh, off)| Until::Limit(refresh, off)),
    ]
    .boxed()
}

fn writes(key: BoxedStrategy<u8>, flavour: Flavour) -> BoxedStrategy<Act> {
    prop_oneof![
        3 => (key.clone(), owns(flavour)).prop_map(|(key, own)| Act::Set(key, own)),
        3 => key.prop_map(Act::Remove),
        2 => Just(Act::Clear),
    ]
    .boxed()
}

fn batches(flavour: Flavour) -> BoxedStrategy<Act> {
    let key = || mostly(1, 0..flavour.keys.max(1));
    let keys = || {
        ([key(), key(), key(), key()], prop_oneof![1 => 0..2u8, 4 => 2..5u8])
            .prop_map(|(list, count)| Keys { list, count })
    };
    let odd = prop_oneof![3 => Just(Odd::Even), 1 => Just(Odd::Forgets), 1 => Just(Odd::Fails), 1 => Just(Odd::Extra)];
    prop_oneof![
        8 => (keys(), plans(flavour), odd).prop_map(|(keys, plan, odd)| Act::AskMany(keys, plan, odd)),
        1 => keys().prop_map(Act::GetMany),
        1 => (keys(), owns(flavour)).prop_map(|(keys, own)| Act::SetMany(keys, own)),
        1 => keys().prop_map(Act::RemoveMany),
    ]
    .boxed()
}

/// A write, somebody who asks beside it, and somebody who asks after it: where fences are tried.
fn beside_a_write(flavour: Flavour) -> BoxedStrategy<Vec<Vec<Step>>> {
    let ask = || plans(flavour).prop_map(|plan| Act::Ask(0, plan));
    let slow = (plans(flavour), 0..4u8).prop_map(|(plan, takes)| Act::Ask(0, Plan { takes, ..plan }));
    let more = || prop::collection::vec(acts(flavour), 0..2);
    (any::<bool>(), writes(Just(0u8).boxed(), flavour), ask(), slow, more())
        .prop_map(|(later, write, after, slow, more)| {
            let step = |act| Step { act, leaves: 0 };
            let first = later.then_some(Act::Wait(Until::Tick)).into_iter().chain([write, after]);
            vec![first.map(step).collect(), std::iter::once(slow).chain(more).map(step).collect()]
        })
        .boxed()
}

/// One who comes a tick around the instant at which a value becomes due, and one who comes when its refresh has
/// failed, or runs still.
fn around_due(flavour: Flavour) -> BoxedStrategy<Vec<Vec<Step>>> {
    let off = prop_oneof![Just(0i8), Just(1), Just(-1)];
    let slow = (plans(flavour), prop_oneof![2 => Just(3u8), 1 => Just(0)]).prop_map(|(plan, takes)| Plan {
        takes,
        own: Own::default(),
        ..plan
    });
    let calm = plans(flavour).prop_map(|plan| Plan { own: Own::default(), ..plan });
    let later =
        prop_oneof![1 => Just(Until::Tick), 1 => Just(Until::Seconds(1)), 2 => Just(Until::Seconds(2))];
    let more = prop::collection::vec(acts(flavour), 0..3);
    (any::<bool>(), calm, off, slow, later, plans(flavour), more)
        .prop_map(|(loads, first, off, due, later, last, more)| {
            let first = if loads { Act::Ask(0, first) } else { Act::Set(0, Own::default()) };
            let (edge, later) = (Act::Wait(Until::Edge(0, 3, off)), Act::Wait(later));
            let acts = [first, edge, Act::Ask(0, due), later, Act::Ask(0, last)];
            vec![acts.into_iter().chain(more).map(|act| Step { act, leaves: 0 }).collect()]
        })
        .boxed()
}

/// A failure, a success and another failure, or a failure beside a removal; and somebody who asks when the one that
/// counts is over, or is none.
fn told_apart(flavour: Flavour) -> BoxedStrategy<Vec<Vec<Step>>> {
    let plan = |work, takes| Plan {
        work,
        yields: 0,
        takes,
        own: Own { ttl: 2, ..Own::default() },
        patience: 0,
        way: 0,
    };
    let steps = |acts: Vec<Act>| acts.into_iter().map(|act| Step { act, leaves: 0 }).collect::<Vec<_>>();
    let (fails, answers) =
        (move |takes| Act::Ask(0, plan(Work::Fail, takes)), Act::Ask(0, plan(Work::Answer, 0)));
    let over = Act::Wait(Until::Error(0, 1));
    let row = (0..3u8, 0..3u8).prop_map(move |(first, last)| {
        let expires = Act::Wait(Until::Edge(0, 0, 1));
        vec![steps(vec![fails(first), over, answers, expires, fails(last), over, answers])]
    });
    let removes = prop_oneof![3 => Just(Act::Remove(0)), 1 => Just(Act::Clear)];
    let later = prop_oneof![Just(Until::Seconds(1)), Just(Until::Tick)];
    let beside = (removes, later, plans(flavour)).prop_map(move |(removes, later, last)| {
        let beside = [Until::Seconds(1), Until::Seconds(1), later].map(Act::Wait);
        let last = Act::Ask(0, Plan { patience: 0, ..last });
        vec![steps(vec![fails(2)]), steps(vec![beside[0], removes, beside[1], beside[2], last])]
    });
    prop_oneof![row, beside].boxed()
}

/// One caller whose computations fail in a row, with writes and successes between: where back-off is tried.
fn in_a_row(flavour: Flavour) -> BoxedStrategy<Vec<Vec<Step>>> {
    let own = || prop_oneof![5 => Just(Own { ttl: 2, ..Own::default() }), 1 => owns(flavour)];
    let work = prop_oneof![3 => Just(Work::Fail), 1 => Just(Work::Answer)];
    let ask = (work, mostly(5, 1..3), own()).prop_map(|(work, takes, own)| Plan {
        work,
        yields: 0,
        takes,
        own,
        patience: 0,
        way: 0,
    });
    let write = prop_oneof![
        2 => own().prop_map(|own| Act::Set(0, own)),
        1 => Just(Act::Remove(0)),
        1 => Just(Act::Clear),
    ];
    let write = prop_oneof![6 => Just(None), 1 => write.prop_map(Some)];
    // To the end of what is remembered, and a tick beside it.
    let off = prop_oneof![1 => Just(-1i8), 1 => Just(0), 4 => Just(1)];
    // Or past the value that a success left.
    let wait = prop_oneof![
        6 => off.prop_map(|off| Until::Error(0, off)),
        2 => Just(Until::Edge(0, 0, 1)),
        1 => untils(flavour),
    ];
    let wait = prop_oneof![1 => Just(None), 5 => wait.prop_map(Some)];
    prop::collection::vec((mostly(1, 0..2), ask, write, wait), 2..7)
        .prop_map(|rounds| {
            let round = |(key, plan, write, wait)| {
                let wait: Option<Act> = match wait {
                    Some(Until::Error(_, off)) => Some(Act::Wait(Until::Error(key, off))),
                    wait => wait.map(Act::Wait),
                };
                [Some(Act::Ask(key, plan)), write, wait].into_iter().flatten()
            };
            vec![rounds.into_iter().flat_map(round).map(|act| Step { act, leaves: 0 }).collect()]
        })
        .boxed()
}

fn acts(flavour: Flavour) -> BoxedStrategy<Act> {
    let key = match flavour {
        Flavour { limit: true, alone: 0, keys, .. } => (0..keys.max(1)).boxed(),
        Flavour { alone: 0, keys, .. } | Flavour { errors: true, keys, .. } => mostly(3, 0..keys.max(1)),
        Flavour { keys, .. } => mostly(1, 0..keys.max(1)),
    };
    let write = writes(key.clone(), flavour);
    let read = prop_oneof![key.clone().prop_map(Act::Get), key.clone().prop_map(Act::Peek)];
    let faults = |calls: BoxedStrategy<Call>, troubles: BoxedStrategy<Trouble>| {
        let nth = mostly(3, 0..3);
        (0..2u8, calls, nth, troubles)
            .prop_map(|(tier, call, nth, trouble)| Act::Fault(tier, call, nth, trouble))
    };
    let halves = prop_oneof![Just(Trouble::Before), Just(Trouble::After)].boxed();
    let calls = prop_oneof![2 => Just(Call::Get), 2 => Just(Call::Set), 1 => Just(Call::Remove), 1 => Just(Call::Clear)];
    let failing = prop_oneof![
        3 => faults(calls.boxed(), halves),
        2 => faults(Just(Call::Set).boxed(), Just(Trouble::Refuse).boxed()),
    ];
    let hanging = faults(
        prop_oneof![4 => Just(Call::Get), 2 => Just(Call::Set), 1 => Just(Call::Remove)].boxed(),
        prop_oneof![Just(Trouble::HangBefore), Just(Trouble::HangAfter)].boxed(),
    );
    let outage = prop_oneof![2 => (0..2u8).prop_map(Act::Down), 1 => (0..2u8).prop_map(Act::Up)];
    weighted(vec![
        (flavour.asks, (key, plans(flavour)).prop_map(|(key, plan)| Act::Ask(key, plan)).boxed()),
        (flavour.reads, read.boxed()),
        (flavour.writes, write.boxed()),
        (flavour.batches, batches(flavour)),
        (flavour.waits, untils(flavour).prop_map(Act::Wait).boxed()),
        (flavour.jumps, (any::<bool>(), 0..4u8).prop_map(|(back, far)| Act::Jump(back, far)).boxed()),
        (flavour.faults, prop_oneof![2 => failing, 1 => outage].boxed()),
        (flavour.hangs, hanging.boxed()),
        (flavour.slow, prop_oneof![Just(1u8), Just(2)].prop_map(Act::SlowReads).boxed()),
        (
            flavour.closes,
            prop_oneof![2 => (1..4u8).prop_map(Act::Shutdown), 1 => Just(Act::DropHandle)].boxed(),
        ),
    ])
}

fn knobs(flavour: Flavour) -> BoxedStrategy<Knobs> {
    let some = |on: bool, choices: std::ops::Range<u8>| {
        if on { prop_oneof![1 => Just(0u8), 6 => choices].boxed() } else { Just(0u8).boxed() }
    };
    let trouble = (
        some(flavour.absences, 1..3),
        some(flavour.errors, 1..4),
        some(flavour.patience, 1..8),
        some(flavour.limit, 1..4),
    );
    let lengths = (prop_oneof![6 => Just(0u8), 1 => 1..4u8], mostly(1, 1..4), mostly(1, 1..4));
    let switches =
        (proptest::bool::weighted(0.3), proptest::bool::weighted(0.1), proptest::bool::weighted(0.4));
    let seldom = |always: bool, most: u8| {
        if always { (1..most).boxed() } else { mostly(7, 1..most) }
    };
    let refreshes = (seldom(flavour.early, 4), seldom(flavour.rates, 3));
    (lengths, switches, trouble, refreshes)
        .prop_map(|(lengths, (strict, jitter, one_refresh), trouble, (ahead, rate))| {
            let (negative, errors, patience, limit) = trouble;
            Knobs {
                ttl: lengths.0,
                stale: lengths.1,
                keep: lengths.2,
                strict,
                jitter,
                negative,
                errors,
                patience,
                limit,
                one_refresh,
                ahead,
                rate,
                bypass: false,
            }
        })
        .boxed()
}

fn planted(flavour: Flavour, key: u8) -> BoxedStrategy<Option<Planted>> {
    let ticks = || prop_oneof![2 => Just(0u8), 2 => 1..3u8, 1 => Just(101u8)];
    let ahead = prop_oneof![3 => Just(0u8), 1 => prop_oneof![Just(4u8), Just(5), Just(6), Just(60)]];
    let ahead = if flavour.jumps > 0 { ahead.boxed() } else { Just(0u8).boxed() };
    let above = || proptest::bool::weighted(0.75);
    let near =
        (above(), -2..3i8, ticks(), ticks(), ahead).prop_map(move |(above, fresh, stale, keep, ahead)| {
            Some(Planted { key, above, fresh, stale, keep, ahead })
        });
    let old = |stale, keep| {
        above().prop_map(move |above| Some(Planted { key, above, fresh: -1, stale, keep, ahead: 0 })).boxed()
    };
    let due = (above(), 101..105i8, 100..102u8)
        .prop_map(move |(above, fresh, stale)| Some(Planted { key, above, fresh, stale, keep: 0, ahead: 0 }));
    weighted(vec![
        (flavour.start.none, Just(None).boxed()),
        (flavour.start.near, near.boxed()),
        (flavour.start.stale, old(101, 0)),
        (flavour.start.kept, old(0, 101)),
        (flavour.start.both, old(101, 101)),
        (flavour.start.due, due.boxed()),
    ])
}

/// Cases of this flavour; `fixed` if the settings are a user's.
pub(crate) fn cases(flavour: Flavour, fixed: bool) -> BoxedStrategy<EngineCase> {
    let knobs = if fixed { Just(Knobs::default()).boxed() } else { knobs(flavour) };
    let knobs = knobs.prop_map(move |knobs| Knobs { bypass: flavour.bypass, ..knobs });
    let under = prop_oneof![2 => Just(Under::Memory), 2 => Just(Under::Remote), 2 => Just(Under::Chain)];
    let step = move |leaves: bool| {
        let leaves =
            if leaves { prop_oneof![3 => Just(0u8), 1 => 1..5u8].boxed() } else { Just(0u8).boxed() };
        (acts(flavour), leaves).prop_map(|(act, leaves)| Step { act, leaves })
    };
    let tasks = weighted(vec![
        (flavour.alone, prop::collection::vec(prop::collection::vec(step(false), 3..12), 1).boxed()),
        (
            10 - flavour.alone.min(10),
            prop::collection::vec(prop::collection::vec(step(flavour.leaves), 1..6), 2..4).boxed(),
        ),
    ]);
    // Where everybody races, fences are what is tried.
    let fences = u32::from((flavour.slow_work || flavour.errors) && flavour.alone < 10)
        * if flavour.races { 2 } else { 1 };
    let rows = u32::from(flavour.errors) * 4;
    let due = u32::from(flavour.early);
    let tasks = weighted(vec![
        (2, tasks),
        (fences, beside_a_write(flavour)),
        (due, around_due(flavour)),
        (rows, in_a_row(flavour)),
        (rows / 4, told_apart(flavour)),
    ]);
    let choices = prop::collection::vec(prop_oneof![2 => Just(0u8), 3 => 0..8u8], 0..40);
    let races = if flavour.races { proptest::bool::weighted(0.3).boxed() } else { Just(false).boxed() };
    let slow = if flavour.slow_work { 3 } else { 1 };
    let writes =
        prop_oneof![4 => Just(Writes::AtOnce), slow => Just(Writes::Linger), slow => Just(Writes::LateSets)];
    let planted = (planted(flavour, 0), planted(flavour, 1))
        .prop_map(|(first, second)| [first, second].into_iter().flatten().collect::<Vec<_>>());
    (knobs, under, planted, tasks, choices, races, writes)
        .prop_map(|(knobs, under, planted, tasks, choices, races, writes)| {
            let alone = tasks.len() == 1;
            EngineCase {
                knobs,
                under,
                planted,
                tasks,
                choices: if alone { Vec::new() } else { choices },
                races: races && !alone,
                writes: if alone { Writes::AtOnce } else { writes },
            }
        })
        .boxed()
}
