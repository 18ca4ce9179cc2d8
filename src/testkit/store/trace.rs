//! What came of a plan: every call with its answer, and how the whole ended.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::error::ErrorKind;
use crate::testkit::History;
use crate::testkit::history::{Call, Loss, Reply};
use crate::testkit::runner::Finding;
use crate::testkit::store::plan::{NEIGHBOUR, OTHER_NEIGHBOUR, Op, Plan, SECOND};
use crate::time::Timestamp;

/// The answer to one key of a call, or to a call without keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum One {
    /// A read.
    Saw(Option<Seen>),
    /// A peek; `None` says nothing.
    Shown(Option<Seen>),
    Stored,
    Refused,
    Done,
    Failed(ErrorKind, String),
    /// A length or weight; how many of the numbered keys were found.
    Number(Option<u64>),
    /// Whether something was there to give up or to damage.
    Found(bool),
}

/// An entry that was read, told apart by what the plan wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The draft whose value it has; `None` if nobody wrote that value.
    pub(crate) draft: Option<u32>,
    /// Under which key that draft was written.
    pub(crate) key: u8,
    /// In what it differs from the draft, in words.
    pub(crate) differs: Vec<String>,
}

/// One call of a task.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) task: usize,
    pub(crate) on: u8,
    pub(crate) op: Op,
    /// The number of its first draft.
    pub(crate) first: u32,
    pub(crate) begin: u64,
    pub(crate) end: Option<(u64, Vec<One>)>,
    /// The clock when it began.
    pub(crate) now: Timestamp,
    /// When it was dropped before its end.
    pub(crate) dropped: Option<u64>,
}

/// How the plan as a whole ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    #[default]
    Returned,
    /// Nobody is runnable.
    Hung(String),
    /// Nobody stops being runnable.
    Spun(String),
    Panicked(String),
    /// The case took longer than it may, by a real clock.
    Late(String),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) events: Vec<Event>,
    pub(crate) end: End,
    /// The corpus by place, for the timeline.
    pub(crate) names: Vec<String>,
    /// How many tasks the plan has; what comes behind them is the look at what they left.
    pub(crate) tasks: usize,
}

/// Where what a client writes is to be found.
pub(crate) fn place(on: u8) -> u8 {
    if on == SECOND { 0 } else { on }
}

impl Trace {
    /// Law E of the kit: nobody hangs, spins or panics.
    pub(crate) fn ended(&self) -> Result<(), Finding> {
        let (got, cause) = match &self.end {
            End::Returned => return Ok(()),
            End::Hung(who) => (
                format!("nobody is runnable, and {who} waits for ever: the store hangs"),
                "a lock held across an await, a waker that is dropped, a permit that a cancelled call kept",
            ),
            End::Spun(who) => (
                format!("the budget of polls is used up, and {who} is still runnable: the store spins"),
                "a loop that wakes itself without progress",
            ),
            End::Panicked(what) if what.contains("Tokio") => (
                format!("the store panicked: {what}"),
                "the store needs tokio: check it over real time, `real_time(budget)`",
            ),
            End::Panicked(what) => {
                (format!("the store panicked: {what}"), "an `unwrap` or an index that input can reach")
            }
            End::Late(limit) => (
                format!("the case was not over within {limit}"),
                "the store hangs, or the server behind it is slow: raise `patience`",
            ),
        };
        Err(self.finding("every call ends", got, cause))
    }

    /// Without a fault, no call fails.
    pub(crate) fn unfailed(&self) -> Result<(), Finding> {
        for event in &self.events {
            for one in event.answers() {
                if let One::Failed(kind, text) = one {
                    return Err(self.finding(
                        "without a fault no call fails",
                        format!("{} failed ({kind:?}): {text}", self.describe(event)),
                        "see the error; a value too large for the store is `Ok(Refused(TooLarge))`, a miss `Ok(None)`",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Every read gives back what was written, or nothing.
    pub(crate) fn unaltered(&self) -> Result<(), Finding> {
        for event in &self.events {
            for (one, key) in event.answers().iter().zip(event.op.keys()) {
                let (One::Saw(Some(seen)) | One::Shown(Some(seen))) = one else { continue };
                // Nobody had even begun to write when the read was over.
                let over = event.end.as_ref().map_or(u64::MAX, |(end, _)| *end);
                let own = |other: &&Event| place(other.on) == place(event.on) && other.begin < over;
                if !self.events.iter().filter(own).any(|other| !other.op.drafts().is_empty()) {
                    return Err(self.finding(
                        "nothing: the store was just made",
                        format!("{} answered an entry: instances share state", self.describe(event)),
                        "something outside the instance that keeps entries (a static, a table, a directory), of whose \
                         names the namespace of the site is no part",
                    ));
                }
                let Some(draft) = seen.draft else {
                    return Err(self.finding(
                        "an entry that somebody wrote, or none",
                        format!(
                            "{} answered a value that nobody wrote: {}",
                            self.describe(event),
                            seen.differs.join("; ")
                        ),
                        "a codec that is not its own inverse, bytes that are cut or mixed",
                    ));
                };
                if let Some(difference) = seen.differs.first() {
                    return Err(self.finding(
                        &format!("entry {draft} as it was written, in every field"),
                        format!("{} answered it with {difference}", self.describe(event)),
                        "a field that is not stored, is cut to fewer bits, or is taken from somewhere else",
                    ));
                }
                if seen.key != key {
                    return Err(self.finding(
                        &format!("an entry that was written under {}", self.key(key)),
                        format!(
                            "{} answered entry {draft}, written under {}",
                            self.describe(event),
                            self.key(seen.key)
                        ),
                        "two keys share a place: see how keys become names",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Law S3 over everything that was seen.
    pub(crate) fn is_register(&self, loss: Loss) -> Result<(), Finding> {
        let history = History::<(u8, u8), u32>::new();
        let keys: Vec<(u8, u8)> = {
            let mut keys: Vec<_> = self
                .events
                .iter()
                .flat_map(|event| event.op.keys().into_iter().map(|key| (place(event.on), key)))
                .collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        // Begins and ends in the order in which they were.
        let mut ticks: BTreeMap<u64, (usize, bool)> = BTreeMap::new();
        for (index, event) in self.events.iter().enumerate() {
            ticks.insert(event.begin, (index, true));
            if let Some(end) = event.end.as_ref().map(|(end, _)| *end).or(event.dropped) {
                ticks.insert(end, (index, false));
            }
        }
        let mut running: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for &(index, begins) in ticks.values() {
            let event = &self.events[index];
            if begins {
                let calls = event.calls(&keys);
                let task = format!("task {}", event.task);
                let begin = |(key, call)| history.begin(&task, Some(key), call);
                running.insert(index, calls.into_iter().map(begin).collect());
            } else {
                // Without replies it was dropped, and so is what stands for it.
                let replies = event.replies(&keys);
                for (call, reply) in running.remove(&index).unwrap_or_default().into_iter().zip(replies) {
                    call.end(reply);
                }
            }
        }
        drop(running);
        history.check(loss).map_err(|violation| {
            let key = history.keys().into_iter().nth(violation.key).map_or(0, |(_, key)| key);
            self.finding(
                "answers that one register, written and read in some order, can give",
                format!("answers under {} that no such order explains", self.key(key)),
                "a write that takes effect after it was acknowledged or dropped, a read of a copy that was not \
                 removed, a value put back by whoever had read it before",
            )
        })
    }

    pub(crate) fn finding(&self, expected: &str, got: String, cause: &str) -> Finding {
        Finding { timeline: self.timeline(), expected: expected.to_owned(), got, cause: cause.to_owned() }
    }

    fn key(&self, key: u8) -> String {
        self.names.get(usize::from(key)).cloned().unwrap_or_else(|| format!("key {key}"))
    }

    fn keys(&self, keys: &[u8]) -> String {
        keys.iter().map(|&key| self.key(key)).collect::<Vec<_>>().join(", ")
    }

    /// The call, as it would be written.
    pub(crate) fn describe(&self, event: &Event) -> String {
        let who = match event.on {
            NEIGHBOUR | OTHER_NEIGHBOUR => "neighbour.",
            SECOND => "second.",
            _ => "",
        };
        let call = match &event.op {
            Op::Set(draft) => format!("set({}, entry {})", self.key(draft.key), event.first),
            Op::Renew(draft, false) => format!("renew({}, entry {})", self.key(draft.key), event.first),
            Op::Renew(draft, true) => {
                format!("renew({}, entry {} with a new value)", self.key(draft.key), event.first)
            }
            Op::Get(key) => format!("get({})", self.key(*key)),
            Op::GetAt(key, at) => format!("get_at({}, instant {at})", self.key(*key)),
            Op::Peek(key) => format!("peek({})", self.key(*key)),
            Op::Remove(key) => format!("remove({})", self.key(*key)),
            Op::Clear => "clear()".to_owned(),
            Op::GetMany(keys) => format!("get_many({})", self.keys(keys)),
            Op::SetMany(drafts) => {
                let item = |(index, draft): (u32, &crate::testkit::store::plan::Draft)| {
                    format!("{} = entry {index}", self.key(draft.key))
                };
                let items: Vec<_> = (event.first..).zip(drafts).map(item).collect();
                format!("set_many({})", items.join(", "))
            }
            Op::RemoveMany(keys) => format!("remove_many({})", self.keys(keys)),
            Op::Flush => "flush()".to_owned(),
            Op::Len => "len()".to_owned(),
            Op::Weight => "weight()".to_owned(),
            Op::Fill(count) => format!("set {count} numbered keys"),
            Op::Count(count) => format!("get {count} numbered keys"),
            Op::Drain(count) => format!("remove_many of {count} numbered keys"),
            Op::Advance(place) => {
                format!("{:?} pass", crate::testkit::store::plan::stride(*place, event.now))
            }
            Op::Reopen => "drop and reopen".to_owned(),
            Op::Outage(true) => "outage begins".to_owned(),
            Op::Outage(false) => "outage ends".to_owned(),
            Op::Damage(key, damage) => format!("bytes of {}: {damage:?}", self.key(*key)),
            Op::Evict => "evict()".to_owned(),
            Op::ClearPrefix(key) => format!("clear_prefix({})", self.key(*key)),
        };
        format!("{who}{call}")
    }

    /// One line an event, one column a task; then the entries that are not plain.
    pub(crate) fn timeline(&self) -> String {
        let tasks = self.events.iter().map(|event| event.task).max().map_or(0, |last| last + 1);
        let mut lines: Vec<(u64, usize, String)> = Vec::new();
        for event in &self.events {
            let call = self.describe(event);
            match &event.end {
                // Nothing came between: one line is enough.
                Some((end, answers)) if *end == event.begin + 1 => {
                    lines.push((event.begin, event.task, format!("{call} -> {}", told(answers))));
                }
                Some((end, answers)) => {
                    lines.push((event.begin, event.task, format!("{call} ..")));
                    lines.push((*end, event.task, format!(".. {}", told(answers))));
                }
                None if event.dropped.is_some() => {
                    lines.push((event.begin, event.task, format!("{call} ..")));
                    lines.push((event.dropped.unwrap_or(0), event.task, ".. dropped".to_owned()));
                }
                None => lines.push((event.begin, event.task, format!("{call} .. no end"))),
            }
        }
        lines.sort_by_key(|(tick, ..)| *tick);
        let width = lines.iter().map(|(.., text)| text.chars().count()).max().unwrap_or(0) + 2;
        let mut text = String::new();
        if tasks > 1 {
            for task in 0..tasks {
                let name = if task < self.tasks { format!("task {task}") } else { "afterwards".to_owned() };
                let _ = write!(text, "{name:width$}");
            }
            text.push('\n');
        }
        for (_, task, line) in lines {
            let indent = if tasks > 1 { task * width } else { 0 };
            let _ = writeln!(text, "{:indent$}{line}", "");
        }
        for event in &self.events {
            for (number, draft) in (event.first..).zip(event.op.drafts()) {
                let plain = crate::testkit::store::plan::Draft::lasting(draft.key);
                if *draft != plain {
                    let _ = writeln!(text, "entry {number}: {}", entry_words(draft));
                }
            }
        }
        text
    }
}

fn entry_words(draft: &crate::testkit::store::plan::Draft) -> String {
    let life = draft.lifetime();
    let mut words = format!(
        "created {}, fresh until {}, stale until {}, kept until {}",
        life.created_at(),
        life.fresh_until(),
        life.stale_until(),
        life.keep_until()
    );
    if let Some(version) = draft.version() {
        let _ = write!(words, ", version {version:?}");
    }
    if !draft.tags().is_empty() {
        let _ = write!(words, ", tags {:?}", draft.tags());
    }
    if let Some(size) = draft.size() {
        let _ = write!(words, ", {size} bytes");
    }
    words
}

fn told(answers: &[One]) -> String {
    let one = |one: &One| match one {
        One::Saw(None) | One::Shown(None) => "nothing".to_owned(),
        One::Saw(Some(seen)) | One::Shown(Some(seen)) => match seen.draft {
            Some(draft) if seen.differs.is_empty() => format!("entry {draft}"),
            Some(draft) => format!("entry {draft}, but {}", seen.differs.join("; ")),
            None => "a value that nobody wrote".to_owned(),
        },
        One::Stored => "stored".to_owned(),
        One::Refused => "refused".to_owned(),
        One::Done => "done".to_owned(),
        One::Failed(kind, _) => format!("failed ({kind:?})"),
        One::Number(None) => "unknown".to_owned(),
        One::Number(Some(number)) => number.to_string(),
        One::Found(found) => if *found { "done" } else { "nothing there" }.to_owned(),
    };
    if answers.is_empty() { "()".to_owned() } else { answers.iter().map(one).collect::<Vec<_>>().join(", ") }
}

impl Event {
    pub(crate) fn answers(&self) -> &[One] {
        self.end.as_ref().map_or(&[], |(_, answers)| answers)
    }

    /// The calls of a register that this one consists of.
    fn calls(&self, keys: &[(u8, u8)]) -> Vec<((u8, u8), Call<u32>)> {
        let own = place(self.on);
        match &self.op {
            Op::Clear => keys.iter().filter(|(on, _)| *on == own).map(|&key| (key, Call::Remove)).collect(),
            Op::Set(_) | Op::Renew(..) | Op::SetMany(_) => {
                let drafts = (self.first..).zip(self.op.drafts());
                drafts.map(|(number, draft)| ((own, draft.key), Call::Set(number))).collect()
            }
            Op::Remove(_) | Op::RemoveMany(_) => {
                self.op.keys().into_iter().map(|key| ((own, key), Call::Remove)).collect()
            }
            Op::Get(_) | Op::GetAt(..) | Op::GetMany(_) | Op::Peek(_) => {
                self.op.keys().into_iter().map(|key| ((own, key), Call::Get)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The replies to [`Event::calls`].
    fn replies(&self, keys: &[(u8, u8)]) -> Vec<Reply<u32>> {
        let reply = |one: &One| match one {
            // What nobody wrote is a number that nobody wrote.
            One::Saw(Some(seen)) | One::Shown(Some(seen)) => Reply::Saw(Some(seen.draft.unwrap_or(u32::MAX))),
            One::Saw(None) => Reply::Saw(None),
            One::Stored | One::Done | One::Number(_) | One::Found(_) => Reply::Done,
            One::Refused => Reply::Refused,
            // A peek that does not answer says nothing.
            One::Failed(..) | One::Shown(None) => Reply::Failed,
        };
        if self.end.is_none() {
            return Vec::new();
        }
        if self.op == Op::Clear {
            let own = place(self.on);
            let count = keys.iter().filter(|(on, _)| *on == own).count();
            let reply = self.answers().first().map_or(Reply::Failed, reply);
            return vec![reply; count];
        }
        self.answers().iter().map(reply).collect()
    }
}

/// What a map would hold after a plan of one task, as far as its answers leave it open.
#[derive(Debug)]
pub(crate) struct Oracle<'a> {
    trace: &'a Trace,
    may_forget: bool,
    held: BTreeMap<(u8, u8), Vec<Option<u32>>>,
    keeps: BTreeMap<u32, Timestamp>,
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(trace: &'a Trace, may_forget: bool) -> Self {
        Self { trace, may_forget, held: BTreeMap::new(), keeps: BTreeMap::new() }
    }

    /// Goes through the answers; the first that a map does not give is a finding.
    pub(crate) fn check(mut self) -> Result<(), Finding> {
        for event in &self.trace.events {
            self.step(event)?;
        }
        Ok(())
    }

    pub(crate) fn holds(&self, on: u8, key: u8) -> &[Option<u32>] {
        self.held.get(&(place(on), key)).map_or(&[None], Vec::as_slice)
    }

    pub(crate) fn step(&mut self, event: &Event) -> Result<(), Finding> {
        let own = place(event.on);
        for (number, draft) in (event.first..).zip(event.op.drafts()) {
            self.keeps.insert(number, draft.lifetime().keep_until());
        }
        if event.op == Op::Clear {
            let done = event.answers().first() == Some(&One::Done);
            for (_, held) in self.held.iter_mut().filter(|((on, _), _)| *on == own) {
                become_none(held, done);
            }
            return Ok(());
        }
        for (index, (key, answer)) in event.op.keys().into_iter().zip(event.answers()).enumerate() {
            let number = event.first + u32::try_from(index).unwrap_or(0);
            let writes = !event.op.drafts().is_empty();
            let held = self.held.entry((own, key)).or_insert_with(|| vec![None]);
            match answer {
                One::Stored => *held = vec![Some(number)],
                One::Refused => *held = vec![None],
                One::Done => become_none(held, true),
                One::Failed(..) if writes => held.extend([Some(number), None]),
                One::Failed(..) if matches!(event.op, Op::Remove(_) | Op::RemoveMany(_)) => {
                    become_none(held, false);
                }
                One::Saw(seen) | One::Shown(seen @ Some(_)) => {
                    let seen = seen.as_ref().map(|seen| seen.draft.unwrap_or(u32::MAX));
                    let dead = |number: &Option<u32>| {
                        number.is_some_and(|number| {
                            self.keeps.get(&number).is_some_and(|&keep| keep < event.now)
                        })
                    };
                    let may_go = self.may_forget || held.iter().any(dead);
                    let allowed = held.contains(&seen) || (seen.is_none() && may_go);
                    if !allowed {
                        return Err(Self::surprise(self.trace, event, held, seen));
                    }
                    *held = vec![seen];
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn surprise(trace: &Trace, event: &Event, held: &[Option<u32>], seen: Option<u32>) -> Finding {
        let words = |held: &Option<u32>| match held {
            None => "nothing".to_owned(),
            Some(u32::MAX) => "a value that nobody wrote".to_owned(),
            Some(number) => format!("entry {number}"),
        };
        let expected = held.iter().map(words).collect::<Vec<_>>().join(" or ");
        let cause = match (held, seen) {
            ([Some(_)], None) => {
                "an entry was dropped without need: by its freshness, by a key that is routed elsewhere, by a bound \
                 that counts wrong; a store that may forget at any time says so with `forgets`"
            }
            (_, Some(u32::MAX)) => {
                "what another case left: make each store empty, in the namespace of its site; or bytes that are mixed"
            }
            ([None], Some(_)) => "what was removed is still somewhere: a copy, another name, an index",
            _ => "an older entry is back: a write that did not replace, a copy that was not dropped",
        };
        let got = format!("{} answered {}", trace.describe(event), words(&seen));
        trace.finding(&expected, got, cause)
    }
}

fn become_none(held: &mut Vec<Option<u32>>, done: bool) {
    if done {
        *held = vec![None];
    } else if !held.contains(&None) {
        held.push(None);
    }
}

/// The first draft of each step of each task.
pub(crate) fn numbers(plan: &Plan) -> Vec<Vec<u32>> {
    let mut next = 0;
    let mut number = |count: usize| {
        let first = next;
        next += u32::try_from(count).unwrap_or(0);
        first
    };
    plan.tasks.iter().map(|steps| steps.iter().map(|step| number(step.op.drafts().len())).collect()).collect()
}
