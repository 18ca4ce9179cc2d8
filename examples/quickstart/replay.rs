//! Clients that ask for one page after another.

use std::error::Error;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::args::Args;
use crate::origin::Page;
use crate::trace;

/// The requests, and how many clients share them out.
#[derive(Debug)]
pub(crate) struct Replay {
    requests: Arc<[u32]>,
    pub(crate) pages: usize,
    pub(crate) clients: usize,
}

/// What the clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
    pub(crate) wrong: u64,
    pub(crate) took: Duration,
}

impl Seen {
    pub(crate) fn requests(self) -> u64 {
        self.answered + self.unanswered + self.wrong
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            unanswered: self.unanswered + other.unanswered,
            wrong: self.wrong + other.wrong,
            took: self.took + other.took,
        }
    }
}

impl Replay {
    pub(crate) fn new(args: &Args) -> Result<Self, Box<dyn Error>> {
        let mut requests = trace::requests()?;
        requests.truncate(args.requests.unwrap_or(usize::MAX));
        // Pages are numbered in the order in which they are first asked for.
        let pages = requests.iter().max().map_or(0, |last| *last as usize + 1);
        let clients = match args.clients {
            Some(clients) => usize::from(clients),
            None => std::thread::available_parallelism()?.get(),
        };
        Ok(Self { requests: requests.into(), pages, clients })
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Asks `answer` for the pages of these requests. Each client has one request under way at a time.
    pub(crate) async fn run<F, Fut, E>(
        &self,
        label: &'static str,
        range: Range<usize>,
        answer: F,
    ) -> Result<Seen, Box<dyn Error>>
    where
        F: Fn(u32) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<Arc<Page>, E>> + Send,
        E: Send + 'static,
    {
        let progress = progress(label, range.len());
        let next = Arc::new(AtomicUsize::new(range.start));
        let began = now();
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            let (requests, end) = (Arc::clone(&self.requests), range.end);
            let (next, answer, progress) = (Arc::clone(&next), answer.clone(), progress.clone());
            clients.spawn(async move {
                let mut seen = Seen::default();
                while let Some(product) = requests[..end].get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    match answer(product).await {
                        Ok(page) if page.product == product => seen.answered += 1,
                        Ok(_) => seen.wrong += 1,
                        Err(_) => seen.unanswered += 1,
                    }
                    progress.inc(1);
                }
                seen
            });
        }
        let mut all = Seen::default();
        while let Some(seen) = clients.join_next().await {
            all = all.and(seen?);
        }
        all.took = now().duration_since(began);
        progress.finish_and_clear();
        Ok(all)
    }
}

#[expect(clippy::disallowed_methods, reason = "a program that reports how long it took")]
fn now() -> Instant {
    Instant::now()
}

/// A bar on standard error, if that is a terminal.
fn progress(label: &'static str, requests: usize) -> ProgressBar {
    let bar = ProgressBar::new(requests as u64).with_message(label);
    match ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
