//! Whatever makes one store of two tiers, judged by the laws of chains (group C).

mod batch;
mod held;
mod trouble;

use std::fmt;
use std::sync::Arc;

use proptest::prelude::*;

use crate::dynamic::BoxStore;
use crate::store::Store;
use crate::testkit::history::Loss;
use crate::testkit::race::{self, Blame, Race, Step, Tier, World, explored, in_turn, scheduled};
use crate::testkit::report::{LawReport, Report};
use crate::testkit::runner::{LawName, Settings, knobs, run};
use crate::testkit::stacks::row;
use crate::time::Clock;

/// Judges what `join` makes of two tiers, the first in front of the second, by the laws of chains (C1 to C6, C8).
///
/// The tiers fail, hang, forget and interleave as the kit tells them; the clock is for whatever the chain dates.
///
/// ```
/// use larder::Chain;
/// use larder::testkit::check_chain;
///
/// check_chain("chain", |upper, lower, clock| Chain::new(upper, lower).clock(clock)).cases(8).run().assert();
/// ```
pub fn check_chain<C>(
    name: impl Into<String>,
    join: impl Fn(Tier, Tier, Arc<dyn Clock>) -> C + Send + Sync + 'static,
) -> ChainCheck
where
    C: Store<Key = str, Value = u64> + 'static,
{
    let join: Join = Arc::new(move |upper, lower, clock| BoxStore::new(join(upper, lower, clock)));
    ChainCheck { settings: Settings::new(name), chain: ChainUnderTest { join, strict: false } }
}

/// See [`check_chain`].
#[must_use = "nothing is checked until it runs"]
pub struct ChainCheck {
    settings: Settings,
    chain: ChainUnderTest,
}

impl fmt::Debug for ChainCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainCheck").field("settings", &self.settings).finish_non_exhaustive()
    }
}

type Join = Arc<dyn Fn(Tier, Tier, Arc<dyn Clock>) -> BoxStore<str, u64> + Send + Sync>;

/// How to make the chain, and what it promises.
#[derive(Clone)]
struct ChainUnderTest {
    join: Join,
    strict: bool,
}

impl ChainUnderTest {
    /// A new chain of two new tiers, which hold an old entry of the first key as the mask says.
    fn world(&self, planted: u8) -> World<BoxStore<str, u64>> {
        let world = World::of_tiers(|upper, lower, clock| (self.join)(upper, lower, clock));
        world.plant(planted);
        world
    }
}

const LOWER: u8 = 2;
const BOTH: u8 = 3;

const C1: LawName = LawName {
    name: "c1_first_usable_answer",
    why: "a stale copy in a fast tier hides a fresh one, and the value is computed again for nothing",
};
const C2: LawName = LawName {
    name: "c2_backfill_is_the_same_entry_and_happens",
    why: "every read goes to the slow tier, or a copy lives longer than its original",
};
const C3: LawName = LawName {
    name: "c3_no_backfill_after_a_write",
    why: "a reader brings back what a writer has just replaced or removed",
};
const C4_REGISTER: LawName = LawName {
    name: "c4_a_healthy_chain_forgets_nothing",
    why: "an acknowledged write is gone, or an old one is back, though nothing failed",
};
const C4_FLICKER: LawName = LawName {
    name: "c4_no_reader_sees_it_flicker",
    why: "a reader sees a value gone, and the next one sees it again",
};
const C4_ORDER: LawName = LawName {
    name: "c4_the_deepest_tier_decides",
    why: "whoever is cancelled or reads in the middle of a write finds tiers that contradict each other",
};
const C5_READ: LawName = LawName {
    name: "c5_a_read_fails_only_if_no_tier_answered",
    why: "an outage of a fast tier becomes an outage of all, or an outage of the deepest looks like a miss",
};
const C5_BACKFILL: LawName = LawName {
    name: "c5_a_failed_backfill_fails_no_read",
    why: "trouble in a fast tier fails what a slower one has served",
};
const C5_WRITE: LawName = LawName {
    name: "c5_a_failed_write_is_reported_and_remembered",
    why: "a write that was lost looks stored, or a cache stops remembering in an outage and becomes a stampede",
};
const C6_BACK: LawName = LawName {
    name: "c6_nothing_comes_back_with_a_tier",
    why: "a tier that was away while a key was removed or replaced serves the old value when it returns",
};
const C6_RACE: LawName = LawName {
    name: "c6_nothing_goes_back_in_an_outage",
    why: "tiers that come and go bring values back that were replaced or removed",
};
const C6_LIFTED: LawName = LawName {
    name: "c6_a_mark_is_lifted_when_a_write_got_through",
    why: "a tier that is well again is never used for the key any more, or is not cleaned up",
};
const C6_SPARES: LawName = LawName {
    name: "c6_a_retried_removal_spares_a_newer_write",
    why: "a removal that is made up for takes a newer value along",
};
const S11: LawName = LawName {
    name: "s11_a_batch_is_its_single_calls",
    why: "one user is answered with the value of another, or a key that fails takes the whole batch along",
};
const C8: LawName = LawName {
    name: "c8_a_reader_never_waits_for_a_writer",
    why: "one slow write makes every reader of the key slow",
};

const LAWS: [LawName; 15] = [
    C1,
    C2,
    C3,
    C4_REGISTER,
    C4_FLICKER,
    C4_ORDER,
    C5_READ,
    C5_BACKFILL,
    C5_WRITE,
    C6_BACK,
    C6_RACE,
    C6_LIFTED,
    C6_SPARES,
    S11,
    C8,
];

impl ChainCheck {
    knobs!();

    /// The chain takes a new entry back from the upper tier when the lower one failed to store it, as
    /// [`Chain::strict`](crate::Chain::strict) does.
    pub fn strict(mut self) -> Self {
        self.chain.strict = true;
        self
    }

    /// Runs every law.
    pub fn run(self) -> Report {
        self.settings.know(&LAWS);
        let Self { settings, chain } = self;
        let rows = LAWS.into_iter().filter_map(|law| row(&settings, law, || chain.law(&settings, law)));
        let rows: Vec<LawReport> = rows.collect();
        Report::new(settings.name, rows, Vec::new())
    }

    /// Runs every law, and panics with the report if one is broken.
    #[track_caller]
    pub fn assert(self) {
        self.run().assert();
    }
}

impl ChainUnderTest {
    fn law(&self, settings: &Settings, law: LawName) -> LawReport {
        let chain = self.clone();
        if law.name == C1.name {
            run(settings, law, || held::cases(false), move |case| held::first_usable(&chain, case))
        } else if law.name == C2.name {
            run(settings, law, || held::cases(false), move |case| held::backfill(&chain, case))
        } else if law.name == C5_READ.name {
            run(settings, law, || held::cases(true), move |case| held::outage(&chain, case))
        } else if law.name == C5_BACKFILL.name {
            run(settings, law, || held::cases(false), move |case| held::failed_backfill(&chain, case))
        } else if law.name == C3.name {
            chain.explore(settings, law, &backfills(), BACKFILLED)
        } else if law.name == C4_FLICKER.name {
            chain.explore(settings, law, &flickers(), FLICKERED)
        } else if law.name == C4_REGISTER.name {
            run(
                settings,
                law,
                || race::calm_races(Just(()), 2).boxed(),
                move |race| scheduled(race, &chain.world(race.planted), EXACT),
            )
        } else if law.name == C6_RACE.name {
            run(
                settings,
                law,
                || race::wild_races(Just(()), 2).boxed(),
                move |race| scheduled(race, &chain.world(race.planted), ERASES),
            )
        } else if law.name == C4_ORDER.name {
            chain.all(settings, law, trouble::hanging_writes(), trouble::order)
        } else if law.name == C5_WRITE.name {
            chain.all(settings, law, trouble::failing_writes(), trouble::reported)
        } else if law.name == C6_BACK.name {
            chain.all(settings, law, trouble::outages(), trouble::nothing_comes_back)
        } else if law.name == S11.name {
            run(settings, law, batch::cases, move |script| batch::single(&chain, script))
        } else if law.name == C6_LIFTED.name {
            chain.all(settings, law, trouble::recoveries(), trouble::lifted)
        } else if law.name == C6_SPARES.name {
            chain.all(settings, law, trouble::retries(), trouble::spared)
        } else {
            chain.all(settings, law, trouble::hanging_writes(), trouble::patience)
        }
    }

    /// Every race of the list, under every schedule with at most two preemptions.
    fn explore(self, settings: &Settings, law: LawName, races: &[Race<()>], blame: Blame) -> LawReport {
        self.all(settings, law, races.to_vec(), move |chain, race| {
            explored(race, || chain.world(race.planted), blame)
        })
    }

    /// Every race of the list, once.
    fn all(
        self,
        settings: &Settings,
        law: LawName,
        races: Vec<Race<()>>,
        judge: impl Fn(&Self, &Race<()>) -> Result<(), crate::testkit::runner::Finding> + Send + Sync + 'static,
    ) -> LawReport {
        let mut settings = settings.clone();
        settings.cases = u32::try_from(races.len()).unwrap_or(u32::MAX);
        run(&settings, law, move || in_turn(races), move |race| judge(&self, race))
    }
}

const EXACT: Blame = Blame {
    loss: Loss::Never,
    expected: "what was written last: nothing failed, and the deepest tier forgets nothing",
    cause: "an order of writes in which a reader or a cancelled caller finds an old copy above, or a fence that \
            does not move both when a write begins and when it ends",
};

const BACKFILLED: Blame = Blame {
    loss: Loss::Never,
    expected: "what the later write left",
    cause: "a backfill that does not ask whether a writer began or ended since it read: a fence has to move at \
            both ends of a write",
};

const FLICKERED: Blame = Blame {
    loss: Loss::Never,
    expected: "one order of all calls that every reader agrees with",
    cause: "a removal that goes from the deepest tier up, a write that fills the upper tier first or leaves the \
            old copy there, or writers that do not take turns",
};

const ERASES: Blame = Blame {
    loss: Loss::Erases,
    expected: "the new entry, or nothing: what a failed tier held before counts as absent",
    cause: "a failed write or removal that was forgotten: the tier has to be skipped for the key until a write or \
            removal got through",
};

const WRITES: [Step; 4] = [Step::Set(0), Step::Renew(0), Step::Remove(0), Step::Clear];

/// A write beside readers that may backfill.
fn backfills() -> Vec<Race<()>> {
    let mut races = Vec::new();
    for write in [Step::SetMany, Step::RemoveMany] {
        races.push(Race::of((), LOWER, &[&[write], &[Step::Get(0), Step::Get(0)]]));
        races.push(Race::of((), LOWER, &[&[write], &[Step::GetMany, Step::Get(0)]]));
    }
    for write in WRITES {
        for planted in [LOWER, BOTH] {
            races.push(Race::of((), planted, &[&[write], &[Step::Get(0), Step::Get(0)]]));
            races.push(Race::of((), planted, &[&[write], &[Step::Get(0)], &[Step::Get(0)]]));
            races.push(Race::of((), planted, &[&[write], &[Step::GetMany, Step::Get(0)]]));
        }
    }
    races
}

/// Writers beside each other, and beside readers that peek.
fn flickers() -> Vec<Race<()>> {
    let mut races = Vec::new();
    // A write that is dropped on its way: nobody who has seen the new entry sees the old one again.
    for write in [Step::Set(0), Step::Renew(0), Step::SetMany] {
        for polls in 1..8 {
            let race = Race::of((), BOTH, &[&[write], &[Step::Get(0), Step::Get(0), Step::Peek(0)]]);
            races.push(Race { cancelled: Some((0, polls)), ..race });
        }
    }
    for planted in [LOWER, BOTH] {
        for write in WRITES {
            for other in WRITES {
                races.push(Race::of((), planted, &[&[write], &[other]]));
            }
            races.push(Race::of((), planted, &[&[write], &[Step::Peek(0), Step::Get(0), Step::Peek(0)]]));
            races.push(Race::of((), planted, &[&[write], &[Step::Get(0)], &[Step::Peek(0)]]));
            races.push(Race::of(
                (),
                planted,
                &[&[write], &[Step::Get(0), Step::Get(0)], &[Step::Forget(0, 0)]],
            ));
        }
        races.push(Race::of((), planted, &[&[Step::Set(0)], &[Step::Set(0)], &[Step::Get(0)]]));
        for write in [Step::SetMany, Step::RemoveMany] {
            races.push(Race::of((), planted, &[&[write], &[Step::Peek(0), Step::Get(0)]]));
            races.push(Race::of((), planted, &[&[write], &[Step::Renew(0)], &[Step::Get(0)]]));
        }
    }
    races
}
