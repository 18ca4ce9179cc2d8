//! The origin: what the cache stands in front of.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use larder::Weigh;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A product page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) product: u32,
    pub(crate) title: String,
    pub(crate) html: String,
}

/// The heap behind a page, so that the memory tier can be bounded in bytes.
impl Weigh for Page {
    fn heap(&self) -> u64 {
        self.title.heap() + self.html.heap()
    }
}

/// Renders pages. Each costs about a millisecond of real work on one processor; nothing sleeps.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    down: AtomicBool,
    calls: AtomicU64,
    failures: AtomicU64,
}

/// What the origin answers while it is down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Down;

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the origin is down")
    }
}

impl Error for Down {}

impl Origin {
    /// Renders the page of `product`, on a thread that may be busy for a while.
    pub(crate) async fn page(self: Arc<Self>, product: u32) -> Result<Arc<Page>, Down> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(Down);
        }
        tokio::task::spawn_blocking(move || Arc::new(render(product))).await.map_err(|_| Down)
    }

    pub(crate) fn fail(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// How often the origin was asked, answered or not.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// How often it was asked in vain.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// How often the digest is taken over itself for one page: about a millisecond on a processor with
/// instructions for SHA-256, more without.
const ROUNDS: u32 = 20_000;

const WORDS: [&str; 16] = [
    "solid", "oak", "shelf", "with", "brass", "hinges", "for", "jars", "and", "tins", "in", "every",
    "larder", "of", "the", "house",
];

fn render(product: u32) -> Page {
    let mut digest = Sha256::digest(product.to_le_bytes());
    for _ in 0..ROUNDS {
        digest = Sha256::digest(digest);
    }
    let word = |byte: u8| WORDS[usize::from(byte % 16)];
    let title = format!("{} {} no. {product}", word(digest[0]), word(digest[1]));
    let mut html = format!("<!doctype html><title>{title}</title><h1>{title}</h1><p>");
    // Between one and eight paragraphs: 300 bytes to 3 KiB, 1.5 KiB on average.
    for paragraph in 0..=digest[2] % 8 {
        for byte in digest {
            html.push_str(word(byte.wrapping_add(paragraph)));
            html.push(' ');
            html.push_str(word(byte.rotate_left(4)));
            html.push(' ');
        }
        html.push_str("</p><p>");
    }
    html.push_str("</p>");
    Page { product, title, html }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_depends_on_its_product_alone() {
        assert_eq!(render(7), render(7));
        assert_ne!(render(7), render(8));
    }
}
