//! `conformance!`: one named test a law.

/// Tests a store by the laws: one named `#[test]` a law, in a module of the given name.
///
/// ```
/// use larder::testkit::conformance;
/// # use larder::Lru;
///
/// conformance! {
///     name: lru_of_a_thousand,
///     store: |_site| Lru::<str, String>::new(1_000),
///     promises: |check| check.peeks().counts().max_entries(1_000),
/// }
/// # fn main() {}
/// ```
///
/// - `name`: the module of the tests, and the name in reports.
/// - `store`: makes an empty store for each case. The [`Site`](crate::testkit::Site) that it is given has a
///   namespace that no other case has, and the clock. `async |site| ..` is awaited.
/// - `promises`, if there are any: the methods of [`Check`](crate::testkit::Check). Hooks (`reopen`, `corrupt`,
///   `outage`, ..) and skips with their reasons go there too.
///
/// With the last law the table of all of them is printed, past the capture of the test harness: what was skipped and
/// why is part of it. Seeds of failures land in the caller's `proptest-regressions/`, if the test stands under
/// `src/`.
///
/// Environment: `LARDER_CASES` (cases a law; 256 unless told), `LARDER_SEED` (0 unless told), `LARDER_REPLAY`
/// (one case, as a failure prints it).
#[macro_export]
#[doc(hidden)]
macro_rules! __conformance {
    (name: $name:ident, store: async |$site:ident $(: $ty:ty)?| $make:expr $(,)?) => {
        $crate::__conformance! { name: $name, store: async |$site $(: $ty)?| $make, promises: |check| check }
    };
    (name: $name:ident, store: $make:expr $(,)?) => {
        $crate::__conformance! { name: $name, store: $make, promises: |check| check }
    };
    (name: $name:ident, store: async |$site:ident $(: $ty:ty)?| $make:expr, promises: $promises:expr $(,)?) => {
        $crate::__conformance! { @module $name, check_async, move |$site: $crate::testkit::Site| async move { $make }, $promises }
    };
    (name: $name:ident, store: $make:expr, promises: $promises:expr $(,)?) => {
        $crate::__conformance! { @module $name, check, $make, $promises }
    };
    (@module $name:ident, $check:ident, $make:expr, $promises:expr) => {
        $crate::__conformance! {
            @tests $name, $check, $make, $promises,
            s1_every_field_comes_back
            s1_sizes_are_exact
            s2_age_hides_nothing
            s3_reads_give_what_was_written
            s3_an_overwrite_replaces_all_of_it
            s3_reopening_loses_nothing
            s9_a_peek_is_a_get
            s12_an_entry_lives_until_keep_until
            s5_what_is_absent_can_be_removed
            s5_clear_takes_all_of_its_own
            s5_two_stores_share_nothing
            s5_clear_prefix_takes_its_range
            s6_different_keys_never_meet
            s9_len_and_weight_are_exact
            s10_bounds_hold_after_every_call
            s10_what_is_refused_leaves_nothing
            s10_the_order_of_eviction
            s10_evict_gives_up_one
            s3_a_register_under_any_schedule
            s3_a_register_on_real_threads
            s3_two_clients_see_one_store
            s8_a_dropped_call_leaves_old_or_new
            s4_a_failed_call_leaves_old_new_or_nothing
            s7_damaged_bytes_are_never_served
            k_values_are_dropped_with_the_store
            s11_bulk_calls_are_their_single_calls
            s11_overrides_are_their_defaults
            s13_a_renewal_is_a_write
            d1_handles_change_nothing
            d2_any_adapter_fits
        }
    };
    (@tests $name:ident, $check:ident, $make:expr, $promises:expr, $($law:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "what the closures name is known where the macro stands")]
            use super::*;

            pub(super) static SESSION: $crate::testkit::Session =
                $crate::testkit::Session::new(&[$(stringify!($law)),*]);

            fn law(law: &'static str) {
                let check = $crate::testkit::$check(stringify!($name), $make).source(file!());
                SESSION.run($crate::testkit::configured(check, $promises), law);
            }

            $(
                #[test]
                fn $law() {
                    law(stringify!($law));
                }
            )*
        }
    };
    ($($other:tt)*) => {
        compile_error!(
            "conformance! is written with these fields, in this order: `name: a_name, store: |site| .., promises: |check| ..`; \
             `promises` may be left out"
        );
    };
}

#[cfg(test)]
mod tests {
    use crate::memory::Lru;
    use crate::testkit::conformance;

    conformance! {
        name: an_lru,
        store: |_site| Lru::<str, String>::new(100),
        promises: |check| check.peeks().counts().max_entries(100).cases(16),
    }

    conformance! {
        name: an_awaited_lru,
        store: async |_site| Lru::<u64, bytes::Bytes>::new(100),
        promises: |check| check.peeks().counts().max_entries(100).cases(16),
    }

    #[test]
    fn the_macro_names_every_law_of_the_kit() {
        let known: Vec<_> = crate::testkit::store::all().iter().map(|law| law.name.name).collect();
        assert_eq!(an_lru::SESSION.laws(), known);
        assert_eq!(an_awaited_lru::SESSION.laws(), known);
    }
}
