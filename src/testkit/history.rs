//! What a store may answer: a history of calls, and whether a lossy register explains it (law S3).

use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Debug, Display};
use std::sync::Arc;

use crate::sync::Mutex;

/// How much a register may forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: a miss must come from a removal.
    Never,
    /// Anything at any moment, for good.
    Forgets,
    /// Anything at any moment, also for a while (a tier was down): a miss says nothing.
    Misses,
    /// The same, but a write or removal that failed leaves nothing of the old, as C6 asks of a chain.
    Erases,
}

impl Loss {
    fn hides(self) -> bool {
        matches!(self, Self::Misses | Self::Erases)
    }
}

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<T> {
    /// Reads.
    Get,
    /// Writes this.
    Set(T),
    /// Removes; `clear` is this, for every key.
    Remove,
}

impl<T> Call<T> {
    fn as_ref(&self) -> Call<&T> {
        match self {
            Self::Get => Call::Get,
            Self::Set(value) => Call::Set(value),
            Self::Remove => Call::Remove,
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> Call<U> {
        match self {
            Self::Get => Call::Get,
            Self::Set(value) => Call::Set(change(value)),
            Self::Remove => Call::Remove,
        }
    }

    fn value(&self) -> Option<&T> {
        if let Self::Set(value) = self { Some(value) } else { None }
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// A read saw this.
    Saw(Option<T>),
    /// A write or removal was acknowledged.
    Done,
    /// A write was refused: what was there is gone.
    Refused,
    /// It failed: the old, the new, or none (S4).
    Failed,
    /// It was dropped before its end.
    Dropped,
}

impl<T> Reply<T> {
    fn as_ref(&self) -> Reply<&T> {
        match self {
            Self::Saw(seen) => Reply::Saw(seen.as_ref()),
            Self::Done => Reply::Done,
            Self::Refused => Reply::Refused,
            Self::Failed => Reply::Failed,
            Self::Dropped => Reply::Dropped,
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> Reply<U> {
        match self {
            Self::Saw(seen) => Reply::Saw(seen.map(change)),
            Self::Done => Reply::Done,
            Self::Refused => Reply::Refused,
            Self::Failed => Reply::Failed,
            Self::Dropped => Reply::Dropped,
        }
    }

    fn value(&self) -> Option<&T> {
        if let Self::Saw(seen) = self { seen.as_ref() } else { None }
    }
}

/// One call, on one key or (`clear`) on all of them. Begin and end count events, not time.
#[derive(Clone, Debug)]
pub struct Event<K, T> {
    task: String,
    key: Option<K>,
    call: Call<T>,
    begin: usize,
    end: Option<(usize, Reply<T>)>,
}

/// Calls as they begin and end. Clones write the same history.
#[derive(Debug)]
pub struct History<K, T>(Arc<Mutex<Log<K, T>>>);

#[derive(Debug)]
struct Log<K, T> {
    events: Vec<Event<K, T>>,
    ticks: usize,
}

impl<K, T> Clone for History<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for History<K, T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Log { events: Vec::new(), ticks: 0 })))
    }
}

impl<K: Clone + Ord + Debug, T: Clone + Eq + Debug> History<K, T> {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A call begins. Dropping what this returns without [`Running::end`] means that it was cancelled.
    pub fn begin(&self, task: &str, key: Option<K>, call: Call<T>) -> Running<K, T> {
        let mut log = self.0.lock();
        log.ticks += 1;
        let event = Event { task: task.to_owned(), key, call, begin: log.ticks, end: None };
        log.events.push(event);
        Running { history: self.clone(), index: log.events.len() - 1 }
    }

    /// Every key that was named.
    pub fn keys(&self) -> BTreeSet<K> {
        self.0.lock().events.iter().filter_map(|event| event.key.clone()).collect()
    }

    /// Whether a register that begins empty and may forget this much explains the history of each key.
    pub fn check(&self, loss: Loss) -> Result<(), Violation> {
        for (index, key) in self.keys().into_iter().enumerate() {
            let events = self.of(&key);
            if !Search::new(&events, loss).explains(0, None) {
                return Err(Violation { key: index, text: timeline(&format!("{key:?}"), &events, loss) });
            }
        }
        Ok(())
    }

    /// [`History::check`] for a test.
    ///
    /// # Panics
    /// With the timeline, if there is no explanation.
    #[track_caller]
    pub fn assert(&self, loss: Loss) {
        if let Err(violation) = self.check(loss) {
            panic!("{violation}");
        }
    }

    fn of(&self, key: &K) -> Vec<Event<K, T>> {
        let log = self.0.lock();
        log.events
            .iter()
            .filter(|event| event.key.as_ref().is_none_or(|named| named == key))
            .cloned()
            .collect()
    }
}

/// A call that has not ended.
#[derive(Debug)]
pub struct Running<K, T> {
    history: History<K, T>,
    index: usize,
}

impl<K, T> Running<K, T> {
    /// The call ends with this reply.
    pub fn end(self, reply: Reply<T>) {
        self.record(reply);
    }

    fn record(&self, reply: Reply<T>) {
        let mut log = self.history.0.lock();
        log.ticks += 1;
        let now = log.ticks;
        log.events[self.index].end.get_or_insert((now, reply));
    }
}

impl<K, T> Drop for Running<K, T> {
    fn drop(&mut self) {
        self.record(Reply::Dropped);
    }
}

/// A history that no such register has.
#[derive(Debug)]
pub struct Violation {
    text: String,
    /// Which of [`History::keys`].
    pub(crate) key: usize,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Looks for an order of effects, each within its call, that explains every reply (Wing and Gong 1993,
/// with the memory of Lowe 2017).
struct Search {
    steps: Vec<Step>,
    loss: Loss,
    seen: HashSet<(u64, Option<usize>)>,
}

/// An effect of a call, with the place of its value among the written ones in place of the value.
struct Step {
    begin: usize,
    end: usize,
    effect: Effect,
    /// The step that must come before it.
    after: Option<usize>,
}

#[derive(Clone, Copy)]
enum Effect {
    Nothing,
    Sees(Option<usize>),
    Becomes(Option<usize>),
    MayBecome(Option<usize>),
    ErasesOrBecomes(usize),
}

/// Stands for a value that nobody wrote.
const INVENTED: usize = usize::MAX;

impl Search {
    fn new<K, T: Eq>(events: &[Event<K, T>], loss: Loss) -> Self {
        let written: Vec<&T> = events.iter().filter_map(|event| event.call.value()).collect();
        let place = |value: &T| written.iter().position(|known| *known == value).unwrap_or(INVENTED);
        let mut steps = Vec::with_capacity(events.len());
        for event in events {
            let (begin, end) = (event.begin, event.end.as_ref().map_or(usize::MAX, |(end, _)| *end));
            let effect = match (&event.call, event.end.as_ref().map(|(_, reply)| reply)) {
                (Call::Get, Some(Reply::Saw(None))) if loss.hides() => Effect::Nothing,
                (Call::Get, Some(Reply::Saw(seen))) => Effect::Sees(seen.as_ref().map(place)),
                (Call::Get, _) => Effect::Nothing,
                (Call::Set(new), Some(Reply::Done)) => Effect::Becomes(Some(place(new))),
                (Call::Remove, Some(Reply::Done)) => Effect::Becomes(None),
                (Call::Set(new), Some(Reply::Refused)) => {
                    // A tier may have shown it before another refused it; in the end it is gone.
                    steps.push(Step { begin, end, effect: Effect::MayBecome(Some(place(new))), after: None });
                    Effect::Becomes(None)
                }
                (Call::Set(new), Some(Reply::Failed)) if loss == Loss::Erases => {
                    Effect::ErasesOrBecomes(place(new))
                }
                (Call::Remove, Some(Reply::Failed)) if loss == Loss::Erases => Effect::Becomes(None),
                (Call::Set(new), _) => Effect::MayBecome(Some(place(new))),
                (Call::Remove, _) => Effect::MayBecome(None),
            };
            let refused = matches!(event.end, Some((_, Reply::Refused)));
            let after = refused.then(|| steps.len() - 1);
            steps.push(Step { begin, end, effect, after });
        }
        assert!(steps.len() <= 64, "a history has at most 64 effects a key");
        Self { steps, loss, seen: HashSet::new() }
    }

    /// `done` has a bit for each effect that is already placed.
    fn explains(&mut self, done: u64, holds: Option<usize>) -> bool {
        let open: Vec<usize> = (0..self.steps.len()).filter(|&index| done & (1 << index) == 0).collect();
        let Some(first_end) = open.iter().map(|&index| self.steps[index].end).min() else { return true };
        if !self.seen.insert((done, holds)) {
            return false;
        }
        for index in open {
            // Only a call that began before every open call has ended can come first.
            if self.steps[index].begin > first_end {
                continue;
            }
            if self.steps[index].after.is_some_and(|before| done & (1 << before) == 0) {
                continue;
            }
            let nexts: &[_] = match self.steps[index].effect {
                Effect::Nothing => &[holds],
                Effect::Sees(seen) if seen == holds => &[holds],
                Effect::Sees(_) => &[],
                Effect::Becomes(next) => &[next],
                Effect::MayBecome(next) => &[holds, next, None],
                Effect::ErasesOrBecomes(next) => &[Some(next), None],
            };
            if nexts.iter().any(|&next| self.explains(done | (1 << index), next)) {
                return true;
            }
        }
        // Forgetting is a step of its own.
        self.loss == Loss::Forgets && holds.is_some() && self.explains(done, None)
    }
}

/// One line a begin or end, one column a task; values by number, spelled out below.
fn timeline<K, T: Debug + Eq>(key: &str, events: &[Event<K, T>], loss: Loss) -> String {
    let mut tasks: Vec<&str> = Vec::new();
    let mut values: Vec<&T> = Vec::new();
    for event in events {
        if !tasks.contains(&event.task.as_str()) {
            tasks.push(&event.task);
        }
        let seen = event.end.as_ref().and_then(|(_, reply)| reply.value());
        for value in event.call.value().into_iter().chain(seen) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    let number = |value: &T| values.iter().position(|known| *known == value).unwrap_or(INVENTED);
    let mut lines = Vec::new();
    for event in events {
        let column = tasks.iter().position(|task| *task == event.task).unwrap_or(0);
        lines.push((event.begin, column, format!("{:?} ..", event.call.as_ref().map(number))));
        if let Some((end, reply)) = &event.end {
            lines.push((*end, column, format!(".. {:?}", reply.as_ref().map(number))));
        }
    }
    lines.sort_by_key(|&(tick, ..)| tick);
    let width = lines.iter().map(|(.., text)| text.len()).chain(tasks.iter().map(|task| task.len())).max();
    let width = width.unwrap_or(0) + 2;
    let head = format!("S3: no register (loss: {loss:?}) has this history of key {key}:");
    let names = tasks.iter().map(|task| format!("{task:width$}")).collect::<Vec<_>>().concat();
    let rows = lines
        .iter()
        .map(|(tick, column, what)| format!("{tick:4} {:indent$}{what}", "", indent = column * width));
    let legend = values.iter().enumerate().map(|(number, value)| format!("{number:4} is {value:?}"));
    let text = [head, format!("     {names}")].into_iter().chain(rows).chain(legend);
    text.collect::<Vec<_>>().join("\n")
}
