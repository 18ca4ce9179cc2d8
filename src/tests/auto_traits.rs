//! What may cross threads, checked as this compiles: a task of any runtime can hold it.

use bytes::Bytes;

use crate::adapters::{ByteLimited, Chain, Encoded, FreshForAtMost, Inspect, Null, Prefixed, Sharded};
use crate::cache::{Cache, Loader};
use crate::codec::{Postcard, Raw};
use crate::dynamic::BoxStore;
use crate::error::Error;
use crate::memory::{Lru, Memory, Single};
use crate::store::Store;

type Mem = Memory<str, Bytes>;
/// Every adapter there is, one in another.
type Deep = Chain<
    Chain<Memory<str, String>, FreshForAtMost<Sharded<ByteLimited<Lru<str, String>>>>>,
    Encoded<Prefixed<Inspect<Box<Mem>, fn(&crate::Access<'_, str>)>>, String, Postcard>,
>;

const fn crosses_threads<T: Send + Sync>() {}
const fn can_be_sent<T: Send>(_: &T) {}

const _: () = {
    crosses_threads::<Memory<u64, String>>();
    crosses_threads::<Lru<u64, String>>();
    crosses_threads::<Single<(), String>>();
    crosses_threads::<Null<u64, String>>();
    crosses_threads::<BoxStore<str, String>>();

    crosses_threads::<Chain<Mem, Mem>>();
    crosses_threads::<ByteLimited<Mem>>();
    crosses_threads::<Encoded<Mem, String, Postcard>>();
    #[cfg(feature = "json")]
    crosses_threads::<Encoded<Mem, String, crate::codec::Json>>();
    crosses_threads::<Encoded<Mem, Bytes, Raw>>();
    crosses_threads::<FreshForAtMost<Mem>>();
    crosses_threads::<Inspect<Mem, fn(&crate::Access<'_, str>)>>();
    crosses_threads::<Prefixed<Mem>>();
    crosses_threads::<Sharded<Mem>>();
    crosses_threads::<Deep>();

    crosses_threads::<Cache<Mem>>();
    crosses_threads::<Cache<Mem, Loader<Mem>>>();
    crosses_threads::<Cache<Deep>>();
    crosses_threads::<Cache<Deep, Loader<Deep>>>();
    crosses_threads::<Cache<BoxStore<str, String>>>();
    crosses_threads::<Error>();
};

/// The futures of every call, over a type that says nothing but that it is a store.
#[expect(dead_code, reason = "that it compiles is the test")]
fn the_futures_of_any_store_can_be_sent<S>(
    store: &S,
    cache: &Cache<S>,
    loading: &Cache<S, Loader<S>>,
    key: &S::Key,
) where
    S: Store<Value = String> + 'static,
{
    can_be_sent(&store.get(key));
    can_be_sent(&store.remove(key));
    can_be_sent(&store.clear());
    can_be_sent(&store.flush());
    can_be_sent(&cache.get(key));
    can_be_sent(&cache.set(key, String::new()));
    can_be_sent(&cache.remove(key));
    can_be_sent(&cache.clear());
    can_be_sent(&cache.get_or_compute(key, || async { String::new() }));
    can_be_sent(&cache.get_or_try_compute(key, || async { Ok::<_, std::io::Error>(String::new()) }));
    can_be_sent(&loading.fetch(key));
}

/// And over a deep stack, whose types the compiler has to see through.
#[expect(dead_code, reason = "that it compiles is the test")]
fn the_futures_over_a_deep_stack_can_be_sent(cache: &Cache<Deep>, loading: &Cache<Deep, Loader<Deep>>) {
    can_be_sent(&cache.store().get("k"));
    can_be_sent(&cache.get("k"));
    can_be_sent(&cache.set("k", String::new()));
    can_be_sent(&cache.get_or_compute("k", || async { String::new() }));
    can_be_sent(&loading.fetch("k"));
}
