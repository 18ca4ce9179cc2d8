//! Keys of any serializable type as text that people can read.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Display, Write};

use serde::Serialize;
use serde::ser;

use super::keys::{KeyCodec, write_hex};
use super::unfit;
use crate::error::Result;

/// Keys of any type that serde can serialize: `42` is `42`, `("users", 42)` is `(users,42)`.
///
/// The text is a term of an unambiguous grammar, so that different keys have different texts, whatever
/// strings they hold:
///
/// | key | text |
/// | --- | --- |
/// | integer | decimal: `42`, `-7` |
/// | `bool`, `char` | `~true`, `^x` |
/// | string | itself; `\` before each of <code>&#92; , = ( ) [ ] { }</code>, and `'` in front if it is empty or begins like something else (a digit or one of `-+~^'*#@`) |
/// | float | `#` and its bits in hexadecimal |
/// | `None`, `Some(x)` | `~none`, `+x` |
/// | tuple, tuple struct; sequence | `(a,b)`; `[a,b]` |
/// | map, struct | `{k=v,..}` |
/// | unit; bytes | `()`; `*` and hexadecimal |
/// | variant | `@Name`, `@Name(a,b)`, `@Name{k=v,..}` |
/// | newtype struct | what is inside |
///
/// It costs one allocation a call. What serde does not see cannot be told apart: skipped fields, and
/// variants of an `untagged` enum that hold the same.
///
/// ```
/// use larder::codec::{KeyCodec, Readable};
///
/// assert_eq!(Readable.encode(&("users", 42))?, "(users,42)");
/// assert_ne!(Readable.encode(&("ab", "c"))?, Readable.encode(&("a", "bc"))?);
/// assert_ne!(Readable.encode(&("a,b", "c"))?, Readable.encode(&("a", "b,c"))?);
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Readable;

impl<K: Serialize + ?Sized> KeyCodec<K> for Readable {
    fn encode<'k>(&self, key: &'k K) -> Result<Cow<'k, str>> {
        let mut term = Term(String::new());
        match key.serialize(&mut term) {
            Ok(()) => Ok(Cow::Owned(term.0)),
            Err(error) => Err(unfit("readable").with_source(error)),
        }
    }
}

/// The term written so far.
struct Term(String);

impl Term {
    fn text(&mut self, text: &str) {
        // A string must not begin like another kind of term.
        if text.starts_with(|first: char| first.is_ascii_digit() || "-+~^'*#@".contains(first))
            || text.is_empty()
        {
            self.0.push('\'');
        }
        self.escaped(text);
    }

    fn escaped(&mut self, text: &str) {
        self.0.reserve(text.len());
        for char in text.chars() {
            if "\\,=()[]{}".contains(char) {
                self.0.push('\\');
            }
            self.0.push(char);
        }
    }

    fn number(&mut self, number: impl Display) -> Result<(), Unfit> {
        Ok(write!(self.0, "{number}")?)
    }

    fn variant(&mut self, name: &str) {
        self.0.push('@');
        self.escaped(name);
    }

    fn open(&mut self, open: char, close: char) -> Items<'_> {
        self.0.push(open);
        Items { term: self, close, first: true }
    }
}

macro_rules! numbers {
    ($($method:ident $ty:ty),*) => { $(
        fn $method(self, number: $ty) -> Result<(), Unfit> {
            self.number(number)
        }
    )* };
}

impl<'t> ser::Serializer for &'t mut Term {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Items<'t>;
    type SerializeTuple = Items<'t>;
    type SerializeTupleStruct = Items<'t>;
    type SerializeTupleVariant = Items<'t>;
    type SerializeMap = Items<'t>;
    type SerializeStruct = Items<'t>;
    type SerializeStructVariant = Items<'t>;

    numbers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128
    );

    fn serialize_bool(self, bool: bool) -> Result<(), Unfit> {
        self.0.push_str(if bool { "~true" } else { "~false" });
        Ok(())
    }

    fn serialize_f32(self, float: f32) -> Result<(), Unfit> {
        Ok(write!(self.0, "#{:08x}", float.to_bits())?)
    }

    fn serialize_f64(self, float: f64) -> Result<(), Unfit> {
        Ok(write!(self.0, "#{:016x}", float.to_bits())?)
    }

    fn serialize_char(self, char: char) -> Result<(), Unfit> {
        self.0.push('^');
        self.escaped(char.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Result<(), Unfit> {
        self.text(text);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Unfit> {
        self.0.push('*');
        write_hex(&mut self.0, bytes);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Unfit> {
        self.0.push_str("~none");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unfit> {
        self.0.push('+');
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unfit> {
        self.0.push_str("()");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unfit> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unfit> {
        self.variant(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unfit> {
        self.variant(variant);
        let mut items = self.open('(', ')');
        items.item(value)?;
        items.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'t>, Unfit> {
        Ok(self.open('[', ']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'t>, Unfit> {
        Ok(self.open('(', ')'))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'t>, Unfit> {
        Ok(self.open('(', ')'))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'t>, Unfit> {
        self.variant(variant);
        Ok(self.open('(', ')'))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items<'t>, Unfit> {
        Ok(self.open('{', '}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items<'t>, Unfit> {
        Ok(self.open('{', '}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'t>, Unfit> {
        self.variant(variant);
        Ok(self.open('{', '}'))
    }
}

/// What stands between two brackets.
struct Items<'t> {
    term: &'t mut Term,
    close: char,
    first: bool,
}

impl Items<'_> {
    fn separate(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.term.0.push(',');
        }
    }

    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Unfit> {
        self.separate();
        item.serialize(&mut *self.term)
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.term.0.push('=');
        value.serialize(&mut *self.term)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unfit> {
        self.separate();
        self.term.text(name);
        self.value(value)
    }

    #[expect(clippy::unnecessary_wraps, reason = "serde asks for a result")]
    fn close(self) -> Result<(), Unfit> {
        self.term.0.push(self.close);
        Ok(())
    }
}

macro_rules! items {
    ($($name:ident $method:ident),*) => { $(
        impl ser::$name for Items<'_> {
            type Ok = ();
            type Error = Unfit;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Unfit> {
                self.item(item)
            }

            fn end(self) -> Result<(), Unfit> {
                self.close()
            }
        }
    )* };
}

items!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! fields {
    ($($name:ident),*) => { $(
        impl ser::$name for Items<'_> {
            type Ok = ();
            type Error = Unfit;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unfit> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Unfit> {
                self.close()
            }
        }
    )* };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unfit> {
        self.item(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.value(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.close()
    }
}

/// What a key's own `Serialize` said against it.
#[derive(Debug)]
struct Unfit(String);

impl Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Unfit {}

impl ser::Error for Unfit {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl From<fmt::Error> for Unfit {
    fn from(error: fmt::Error) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::ser::{SerializeMap, SerializeTuple, Serializer};

    use super::*;
    use crate::error::ErrorKind;

    /// Any stream of serde events, as an untagged enum would write it.
    #[derive(Clone, Debug, PartialEq)]
    enum Any {
        Bool(bool),
        Number(i64),
        Float(f64),
        Char(char),
        Text(String),
        Bytes(Vec<u8>),
        None,
        Some(Box<Any>),
        Seq(Vec<Any>),
        Tuple(Vec<Any>),
        Map(Vec<(Any, Any)>),
        Variant(&'static str),
        VariantOf(&'static str, Box<Any>),
    }

    impl Serialize for Any {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Any::Bool(bool) => serializer.serialize_bool(*bool),
                Any::Number(number) => serializer.serialize_i64(*number),
                Any::Float(float) => serializer.serialize_f64(*float),
                Any::Char(char) => serializer.serialize_char(*char),
                Any::Text(text) => serializer.serialize_str(text),
                Any::Bytes(bytes) => serializer.serialize_bytes(bytes),
                Any::None => serializer.serialize_none(),
                Any::Some(some) => serializer.serialize_some(some),
                Any::Seq(items) => serializer.collect_seq(items),
                Any::Tuple(items) => {
                    let mut tuple = serializer.serialize_tuple(items.len())?;
                    for item in items {
                        tuple.serialize_element(item)?;
                    }
                    tuple.end()
                }
                Any::Map(entries) => {
                    let mut map = serializer.serialize_map(None)?;
                    for (key, value) in entries {
                        map.serialize_entry(key, value)?;
                    }
                    map.end()
                }
                Any::Variant(name) => serializer.serialize_unit_variant("Any", 0, name),
                Any::VariantOf(name, of) => serializer.serialize_newtype_variant("Any", 0, name, of),
            }
        }
    }

    /// Three characters a case: with more of them, texts that should not meet hardly ever would.
    fn alphabet() -> impl Strategy<Value = Vec<char>> {
        prop::sample::subsequence(r"\,=()[]{}'~+-#*@^0ab".chars().collect::<Vec<_>>(), 3)
    }

    /// Keys made of the text of another: what an attacker who wants to meet it would try.
    fn impostors(key: &Any) -> Vec<Any> {
        let whole = text(key);
        let inner = whole.get(1..whole.len() - 1).unwrap_or_default();
        let parts = |separator| inner.split(separator).map(|part| Any::Text(part.to_owned()));
        let pair = |at: usize| (Any::Text(inner[..at].to_owned()), Any::Text(inner[at + 1..].to_owned()));
        vec![
            Any::Seq(vec![Any::Text(inner.to_owned())]),
            Any::Tuple(vec![Any::Text(inner.to_owned())]),
            Any::Seq(parts(',').collect()),
            Any::Tuple(parts(',').collect()),
            Any::Map(inner.find('=').map(pair).into_iter().collect()),
            Any::Some(Box::new(Any::Text(whole.chars().skip(1).collect()))),
            Any::Text(whole),
        ]
    }

    fn hostile_text(alphabet: Vec<char>) -> impl Strategy<Value = String> + Clone {
        prop::collection::vec(prop::sample::select(alphabet), 0..4).prop_map(String::from_iter)
    }

    fn any_key(alphabet: Vec<char>) -> impl Strategy<Value = Any> {
        let name = || prop::sample::select(vec!["A", "AB", "A(a)", ""]);
        let leaf = prop_oneof![
            6 => hostile_text(alphabet).prop_map(Any::Text),
            1 => any::<bool>().prop_map(Any::Bool),
            1 => (-20..20i64).prop_map(Any::Number),
            1 => any::<u8>().prop_map(|bits| Any::Float(bits.into())),
            1 => prop::sample::select(vec!['a', '0', ',', '\\', '~']).prop_map(Any::Char),
            1 => prop::collection::vec(0..3u8, 0..3).prop_map(Any::Bytes),
            1 => Just(Any::None),
            1 => name().prop_map(Any::Variant),
        ];
        leaf.prop_recursive(3, 8, 3, move |inner| {
            let items = prop::collection::vec(inner.clone(), 0..3);
            prop_oneof![
                inner.clone().prop_map(|some| Any::Some(Box::new(some))),
                items.clone().prop_map(Any::Seq),
                // A tuple of nothing is the unit of the grammar.
                prop::collection::vec(inner.clone(), 1..3).prop_map(Any::Tuple),
                prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Any::Map),
                (name(), inner).prop_map(|(name, of)| Any::VariantOf(name, Box::new(of))),
            ]
        })
    }

    fn text<K: Serialize + ?Sized>(key: &K) -> String {
        Readable.encode(key).unwrap().into_owned()
    }

    fn never_meet<K: Serialize + PartialEq + fmt::Debug>(keys: &[K]) -> Result<(), TestCaseError> {
        let texts: Vec<String> = keys.iter().map(text).collect();
        for (a, x) in keys.iter().zip(&texts) {
            for (b, y) in keys.iter().zip(&texts) {
                prop_assert_eq!(a == b, x == y, "{:?} and {:?} as {}", a, b, x);
            }
        }
        Ok(())
    }

    proptest! {
        /// S6.
        #[test]
        fn different_keys_never_meet(
            keys in alphabet().prop_flat_map(|chars| prop::collection::vec(any_key(chars), 2..20))
        ) {
            let mut keys = keys;
            keys.extend(keys.iter().flat_map(impostors).collect::<Vec<_>>());
            never_meet(&keys)?;
        }

        /// S6.
        #[test]
        fn different_tuples_of_text_never_meet(
            (pairs, lists) in alphabet().prop_map(hostile_text).prop_flat_map(|text| (
                prop::collection::vec((text.clone(), text.clone()), 2..80),
                prop::collection::vec(prop::collection::vec(text, 0..3), 2..80),
            )),
            options in prop::collection::vec(any::<(Option<Option<i8>>, (), String)>(), 2..20),
        ) {
            never_meet(&pairs)?;
            never_meet(&lists)?;
            never_meet(&options)?;
        }
    }

    #[test]
    fn common_keys_read_well() {
        #[derive(Serialize)]
        struct UserId {
            tenant: &'static str,
            number: u64,
        }
        #[derive(Serialize)]
        enum Page {
            Home,
            Article(u32),
            Search { query: String, page: u8 },
        }
        assert_eq!(text(&42u64), "42");
        assert_eq!(text(&i128::MIN), "-170141183460469231731687303715884105728");
        assert_eq!(text("plain/text:1"), "plain/text:1");
        assert_eq!(text(&("users", 42)), "(users,42)");
        assert_eq!(text(&UserId { tenant: "acme", number: 7 }), "{tenant=acme,number=7}");
        assert_eq!(text(&Page::Home), "@Home");
        assert_eq!(text(&Page::Article(3)), "@Article(3)");
        assert_eq!(text(&Page::Search { query: "a=b".into(), page: 1 }), r"@Search{query=a\=b,page=1}");
        assert_eq!(text(&(Some(Some('x')), None::<u8>, true)), "(++^x,~none,~true)");
    }

    #[test]
    fn a_key_that_serde_refuses_is_invalid_input() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(ser::Error::custom("no"))
            }
        }
        assert_eq!(Readable.encode(&Refuses).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
