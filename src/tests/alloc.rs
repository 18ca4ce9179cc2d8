//! Counts allocations: of the calling thread only, so tests may run side by side.
//!
//! `allocation-counter` installs itself as the test program's allocator by being linked.

/// How many allocations the calling thread makes in `run`; growing a block is one too.
pub(crate) fn allocations(run: impl FnOnce()) -> usize {
    usize::try_from(allocation_counter::measure(run).count_total).expect("a count of this run")
}

/// How many bytes the calling thread allocates in `run`, freed or not.
pub(crate) fn bytes_allocated(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).bytes_total
}

/// How many bytes the calling thread allocates in `run` and has not freed at its end.
pub(crate) fn bytes_kept(run: impl FnOnce()) -> i64 {
    allocation_counter::measure(run).bytes_current
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn what_this_thread_allocates_is_counted_and_nothing_else() {
        assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
        assert_eq!(allocations(|| _ = black_box(1)), 0);
        let mut kept = None;
        assert_eq!(bytes_kept(|| kept = Some(black_box(Box::new(1u64)))), 8);
        let other = std::thread::spawn(|| drop(black_box(vec![1u8; 1 << 20])));
        assert_eq!(allocations(|| while !other.is_finished() {}), 0);
        other.join().expect("it only allocates");
    }
}
