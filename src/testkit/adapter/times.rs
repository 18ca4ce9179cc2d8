//! Bounds and deadlines (S10, C9).

use std::fmt::Debug;
use std::sync::atomic::Ordering;

use super::inner::InnerPlan;
use super::{AdapterUnderTest, over, value};
use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::testkit::race::lasting;
use crate::testkit::runner::Finding;
use crate::testkit::script::{self, Ask, Player, Script, Spec, block, whole};
use crate::time::{Clock, Timestamp};

/// S10: after every call, and in the middle of one.
pub(super) fn bound<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let bound = adapter.promises.bound.unwrap_or(u64::MAX);
    let (store, seen) = adapter.over(&script.over);
    let forget = |_: u8, _: &str| ();
    let player = Player { store: &store, clock: seen.clock(), make: value, show: whole, forget: &forget };
    let mut lines = vec![over(script)];
    for ask in &script.asks {
        let answers = player.ask(ask);
        let texts: Vec<_> = answers.iter().map(|answer| answer.text.as_str()).collect();
        lines.push(format!(
            "{}: {}; holds {:?} of weight {:?}",
            script::told(ask),
            texts.join("; "),
            store.len(),
            store.weight()
        ));
        let (weighed, held) = (seen.weighed(), seen.held().len() as u64);
        let (expected, got, cause) = if weighed > bound || seen.peak() > bound {
            let got = format!("{weighed}, and {} on the way", seen.peak());
            (format!("a weight of at most {bound}"), got, "room is made after the write, or not enough of it")
        } else if store.weight() != Some(weighed) {
            let got = format!("{:?}", store.weight());
            (
                format!("the weight that it says is the weight that it holds: {weighed}"),
                got,
                "a count of its own that an overwrite, a removal or a clear does not correct",
            )
        } else if store.len().is_some_and(|len| len != held) {
            let got = format!("{:?}", store.len());
            (
                format!("the length that it says is the number of entries: {held}"),
                got,
                "a count of its own that an overwrite, a removal or a clear does not correct",
            )
        } else if ask_of_one_larger(&answers, ask, bound, &store) {
            (
                "what was refused is gone, and so is what was there before".to_owned(),
                "it is still there".to_owned(),
                "a refusal that leaves the old entry",
            )
        } else {
            continue;
        };
        return Err(Finding { timeline: lines.join("\n"), expected, got, cause: cause.to_owned() });
    }
    Ok(())
}

/// Whether a write was refused and the key is still there.
fn ask_of_one_larger<A: Store<Key = str>>(answers: &[script::Answer], ask: &Ask, _: u64, store: &A) -> bool {
    let keys: Vec<u8> = match ask {
        Ask::Set(key, _) | Ask::Renew(key, _) => vec![*key],
        _ => Vec::new(),
    };
    let refused = keys.into_iter().zip(answers).filter(|(_, answer)| answer.text == script::REFUSED);
    refused.into_iter().any(|(key, _)| matches!(block(store.get(script::name(key))), Some(Ok(Some(_)))))
}

/// C9: what comes out is what went in, or all three deadlines earlier, by as much.
pub(super) fn deadlines<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&script.over);
    let mut lines = vec![over(script)];
    for ask in &script.asks {
        let (key, spec) = match ask {
            Ask::Set(key, spec) => (*key, *spec),
            Ask::SetMany(entries) if !entries.is_empty() => entries[0],
            Ask::Pass(by) => {
                seen.clock().advance(std::time::Duration::from_nanos((*by).into()));
                continue;
            }
            _ => continue,
        };
        let spec = Spec { fresh: spec.fresh.saturating_mul(9), ..spec };
        let now = seen.clock().now();
        let (name, entry) = (script::name(key), spec.entry::<A::Value>(now, value));
        let one = matches!(block(store.set(name, entry.clone())), Some(Ok(SetOutcome::Stored)));
        let [single, peeked] =
            [block(store.get(name)).and_then(Result::ok).flatten(), store.peek_with(name, Entry::clone)];
        let renewed = block(store.renew(name, entry.clone()))
            .and_then(Result::ok)
            .and_then(|_| block(store.get(name)))
            .and_then(Result::ok)
            .flatten();
        let many = block(store.set_many(&[(name, entry.clone())]));
        let bulk =
            block(store.get_many(&[name], now)).and_then(|mut all| all.pop()).and_then(Result::ok).flatten();
        let again = block(store.get_at(name, now)).and_then(Result::ok).flatten();
        lines.push(format!("set {name:?} to {}: {one}, {many:?}", whole(&entry)));
        for (how, read) in [
            ("get", &single),
            ("peek", &peeked),
            ("get after renew", &renewed),
            ("get_many after set_many", &bulk),
            ("get_at", &again),
        ] {
            let Some(read) = read else { continue };
            let capped = read.lifetime() != entry.lifetime();
            if capped {
                adapter.seen_capped.store(true, Ordering::SeqCst);
            }
            let (expected, cause) = if !capped {
                continue;
            } else if !adapter.promises.caps {
                ("the deadlines that were written", "if it shortens lifetimes, declare it: .caps()")
            } else if !is_capped(read.lifetime(), entry.lifetime()) {
                (
                    "all three deadlines earlier, by as much, and the same origin",
                    "one deadline that is clamped alone, or one that is counted anew from now",
                )
            } else if single.as_ref().is_some_and(|single| single.lifetime() != read.lifetime()) {
                ("the same deadlines, however it was written and read", "a bulk call that does not cap")
            } else {
                continue;
            };
            lines.push(format!("{how}: {}", whole(read)));
            return Err(Finding {
                timeline: lines.join("\n"),
                expected: expected.to_owned(),
                got: whole(read),
                cause: cause.to_owned(),
            });
        }
        // A cap holds for every way in.
        for (other, way) in [(&bulk, "set_many"), (&renewed, "renew")] {
            if let (Some(single), Some(other)) = (&single, other)
                && single.lifetime() != other.lifetime()
            {
                lines.push(format!("get after set: {}", whole(single)));
                lines.push(format!("get after {way}: {}", whole(other)));
                return Err(Finding {
                    timeline: lines.join("\n"),
                    expected: format!("the same deadlines after set and {way}"),
                    got: whole(other),
                    cause: "one way in that does not cap".to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn is_capped(capped: Lifetime, life: Lifetime) -> bool {
    let window = |from: Timestamp, to: Timestamp| to.since(from);
    let earlier = capped.fresh_until() <= life.fresh_until()
        && capped.stale_until() <= life.stale_until()
        && capped.keep_until() <= life.keep_until();
    let windows = life.keep_until().is_never()
        || window(capped.fresh_until(), capped.stale_until())
            == window(life.fresh_until(), life.stale_until())
            && window(capped.stale_until(), capped.keep_until())
                == window(life.stale_until(), life.keep_until());
    capped.created_at() == life.created_at() && earlier && windows
}

/// What it reads has the deadlines of a race's entries again, so that a cap is no change.
pub(super) struct Timeless<A> {
    pub(super) inner: A,
    pub(super) on: bool,
}

impl<A: Store> Timeless<A> {
    fn entry(&self, entry: Entry<A::Value>) -> Entry<A::Value> {
        if !self.on {
            return entry;
        }
        let life = lasting((), 0, entry.created_at()).lifetime();
        entry.with_lifetime(life)
    }
}

impl<A: Store> Store for Timeless<A> {
    type Key = A::Key;
    type Value = A::Value;

    async fn get(&self, key: &A::Key) -> Result<Option<Entry<A::Value>>> {
        Ok(self.inner.get(key).await?.map(|entry| self.entry(entry)))
    }

    async fn set(&self, key: &A::Key, entry: Entry<A::Value>) -> Result<SetOutcome> {
        self.inner.set(key, entry).await
    }

    async fn renew(&self, key: &A::Key, entry: Entry<A::Value>) -> Result<SetOutcome> {
        self.inner.renew(key, entry).await
    }

    async fn remove(&self, key: &A::Key) -> Result<()> {
        self.inner.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.inner.clear().await
    }

    async fn get_at(&self, key: &A::Key, now: Timestamp) -> Result<Option<Entry<A::Value>>> {
        Ok(self.inner.get_at(key, now).await?.map(|entry| self.entry(entry)))
    }

    fn peek_with<R>(&self, key: &A::Key, read: impl FnOnce(&Entry<A::Value>) -> R) -> Option<R> {
        self.inner.peek_with(key, |entry| read(&self.entry(entry.clone())))
    }

    async fn get_many(&self, keys: &[&A::Key], now: Timestamp) -> Vec<Result<Option<Entry<A::Value>>>> {
        let found = self.inner.get_many(keys, now).await;
        found.into_iter().map(|found| Ok(found?.map(|entry| self.entry(entry)))).collect()
    }

    async fn set_many(&self, entries: &[(&A::Key, Entry<A::Value>)]) -> Vec<Result<SetOutcome>> {
        self.inner.set_many(entries).await
    }

    async fn remove_many(&self, keys: &[&A::Key]) -> Vec<Result<()>> {
        self.inner.remove_many(keys).await
    }
}
