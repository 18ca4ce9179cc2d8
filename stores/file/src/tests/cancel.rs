//! Futures that are dropped, and calls that meet.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};

use larder::{BoxFuture, ClearPrefix, Store};
use tokio::runtime::{Builder, Runtime};

use crate::FileStore;

use super::{entry, open, scratch, temporaries};

fn runtime(blocking: usize) -> Runtime {
    Builder::new_current_thread().max_blocking_threads(blocking).build().expect("a runtime")
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Each way to change the entry of "k".
fn changes(store: &FileStore) -> Vec<(&'static str, BoxFuture<'_, ()>)> {
    let many = [("k", entry("new"))];
    vec![
        ("set", Box::pin(async { drop(store.set("k", entry("new")).await) })),
        ("set_many", Box::pin(async move { drop(store.set_many(&many).await) })),
        ("remove", Box::pin(async { drop(store.remove("k").await) })),
        ("remove_many", Box::pin(async { drop(store.remove_many(&["k"]).await) })),
        ("clear", Box::pin(async { drop(store.clear().await) })),
        ("clear_prefix", Box::pin(async { drop(store.clear_prefix("k").await) })),
    ]
}

#[test]
fn s8_a_call_dropped_before_its_thread_began_has_no_effect() {
    let dir = scratch();
    let store = open(dir.path());
    let runtime = runtime(1);
    runtime.block_on(async {
        store.set("k", entry("old")).await.unwrap();
        let (release, held) = mpsc::channel::<()>();
        // The only thread for blocking work is busy.
        let busy = tokio::task::spawn_blocking(move || held.recv());
        for (name, mut change) in changes(&store) {
            assert!(poll_once(change.as_mut()).is_pending(), "{name}");
        }
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert_eq!(store.get("k").await.unwrap(), Some(entry("old")));
    });
}

#[test]
fn s8_a_call_dropped_before_its_turn_has_no_effect() {
    let dir = scratch();
    let store = open(dir.path());
    let runtime = runtime(16);
    runtime.block_on(async {
        store.set("k", entry("old")).await.unwrap();
        {
            // Whether their threads have come as far as the turn or not: none of them has begun.
            let _turn = store.shelf.hold_turn("k");
            for (name, mut change) in changes(&store) {
                assert!(poll_once(change.as_mut()).is_pending(), "{name}");
            }
        }
        assert_eq!(store.get("k").await.unwrap(), Some(entry("old")));
    });
    drop(runtime);
    let runtime = self::runtime(1);
    assert_eq!(runtime.block_on(store.get("k")).unwrap(), Some(entry("old")));
}

#[test]
fn s8_later_calls_wait_for_a_dropped_one_that_has_begun() {
    let dir = scratch();
    let store = open(dir.path());
    let runtime = runtime(16);
    runtime.block_on(async {
        store.set("k", entry("old")).await.unwrap();
        let changes = store.shelf.hold_changes();
        let mut set = Box::pin(store.set("k", entry("new")));
        while temporaries(dir.path()).is_empty() {
            assert!(poll_once(set.as_mut()).is_pending());
            std::thread::yield_now();
        }
        drop(set);
        let mut get = pin!(store.get("k"));
        assert!(poll_once(get.as_mut()).is_pending(), "to answer now would be old, and new later");
        drop(changes);
        assert_eq!(get.await.unwrap(), Some(entry("new")));
        store.remove("k").await.unwrap();
        assert_eq!(store.get("k").await.unwrap(), None);
    });
    assert!(temporaries(dir.path()).is_empty());
}

/// A file that is read and deleted before it could be counted is not counted.
#[test]
fn s9_what_was_evicted_while_it_was_read_is_not_held() {
    let dir = scratch();
    let (here, there) = (open(dir.path()), open(dir.path()));
    let runtime = runtime(1);
    for head_start in 0..100 {
        super::now(there.set("k", entry("x"))).unwrap();
        runtime.block_on(async {
            let changes = here.shelf.hold_changes();
            let mut get = pin!(here.get("k"));
            assert!(poll_once(get.as_mut()).is_pending());
            (0..head_start).for_each(|_| std::thread::yield_now());
            // As an eviction does, which takes no turn.
            std::fs::remove_file(super::file_of(dir.path(), "k")).unwrap();
            drop(changes);
            get.await.unwrap();
        });
        assert_eq!(here.len(), Some(0));
    }
}

#[test]
fn a_runtime_that_goes_away_takes_no_store_along() {
    let dir = scratch();
    let store = open(dir.path());
    let first = runtime(1);
    first.block_on(store.set("k", entry("kept"))).unwrap();
    let (release, held) = mpsc::channel::<()>();
    first.spawn_blocking(move || held.recv());
    {
        let _inside = first.enter();
        let mut set = Box::pin(store.set("k", entry("never begun")));
        assert!(poll_once(set.as_mut()).is_pending());
        drop(set);
        drop(release);
    }
    drop(first);
    assert_eq!(super::now(store.get("k")).unwrap(), Some(entry("kept")));
}

/// S3: writers number their values upwards; no reader ever sees a number after a higher one, and none
/// that is lower than one acknowledged before it asked.
#[test]
fn s3_a_key_never_goes_back() {
    const KEYS: usize = 3;
    const WRITES: u64 = 400;
    let dir = scratch();
    // Room for two of three keys, so that eviction takes part.
    let store = FileStore::at(dir.path()).max_entries(2).open_blocking().unwrap();
    let acknowledged: Arc<[AtomicU64; KEYS]> = Arc::default();
    let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut tasks = Vec::new();
    for key in 0..KEYS {
        let name = key.to_string();
        let (writer, seen) = (store.clone(), Arc::clone(&acknowledged));
        tasks.push(runtime.spawn(async move {
            for number in 1..=WRITES {
                let mut set = Box::pin(writer.set(&name, entry(number.to_string())));
                if number % 5 == 0 {
                    // Nobody waits for every fifth one.
                    let _ = std::future::poll_fn(|context| Poll::Ready(set.as_mut().poll(context))).await;
                } else {
                    set.await.unwrap();
                    seen[key].store(number, Ordering::SeqCst);
                }
                if number % 7 == 0 {
                    writer.remove(&name).await.unwrap();
                }
            }
        }));
        for _ in 0..2 {
            let (reader, seen, name) = (store.clone(), Arc::clone(&acknowledged), key.to_string());
            tasks.push(runtime.spawn(async move {
                let mut last = 0;
                for _ in 0..WRITES {
                    let floor = seen[key].load(Ordering::SeqCst).max(last);
                    if let Some(found) = reader.get(&name).await.unwrap() {
                        let number: u64 = str::from_utf8(found.value()).unwrap().parse().unwrap();
                        assert!(number >= floor, "{number} after {floor}");
                        last = number;
                    }
                    assert!(reader.len() <= Some(2));
                }
            }));
        }
    }
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    drop(runtime);
    let files = super::on_disk(dir.path());
    assert_eq!((store.len(), store.weight()), (Some(files.len() as u64), Some(files.iter().sum())));
}
