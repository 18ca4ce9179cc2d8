//! A stack as a tree that people can read.

use std::borrow::Cow;
use std::fmt;

/// One layer of a stack: its name, its parameters, what it holds, and the layers inside it.
///
/// `Display` prints the tree, outermost first, one line per layer:
///
/// ```text
/// chain
/// ├─ memory (max_entries 10,000) holds 812 entries, 1.3 MiB
/// └─ encoded (postcard)
///    └─ file (dir /var/cache/users) holds 90,112 entries, 2.1 GiB
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a description is to be printed or looked at"]
pub struct Description {
    name: Cow<'static, str>,
    parameters: Vec<(Cow<'static, str>, String)>,
    len: Option<u64>,
    weight: Option<u64>,
    layers: Vec<Description>,
}

impl Description {
    /// A layer of this name, in lower case: `memory`, `chain`.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), parameters: Vec::new(), len: None, weight: None, layers: Vec::new() }
    }

    /// Adds a parameter, printed as `name value` in the order of these calls.
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.parameters.push((name.into(), value.to_string()));
        self
    }

    /// Adds a parameter that counts something, printed as `10,000`.
    pub fn with_count(self, name: impl Into<Cow<'static, str>>, count: u64) -> Self {
        self.with(name, grouped(count))
    }

    /// Adds a parameter in bytes, printed as `1.3 MiB`.
    pub fn with_size(self, name: impl Into<Cow<'static, str>>, bytes: u64) -> Self {
        self.with(name, size(bytes))
    }

    /// Says how many entries the layer holds, and their weight in bytes, as far as it knows.
    pub fn holding(mut self, len: Option<u64>, weight: Option<u64>) -> Self {
        self.len = len;
        self.weight = weight;
        self
    }

    /// Adds a layer inside this one.
    pub fn over(mut self, layer: Description) -> Self {
        self.layers.push(layer);
        self
    }

    /// The layer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a parameter, as it is printed.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Entries held, if the layer knows.
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// Whether the layer knows that it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// Bytes held, if the layer knows.
    pub fn weight(&self) -> Option<u64> {
        self.weight
    }

    /// The layers inside this one.
    pub fn layers(&self) -> &[Description] {
        &self.layers
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, indent: &str) -> fmt::Result {
        f.write_str(&self.name)?;
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { ", " })?;
            f.write_str(name)?;
            if !name.is_empty() && !value.is_empty() {
                f.write_str(" ")?;
            }
            f.write_str(value)?;
        }
        if !self.parameters.is_empty() {
            f.write_str(")")?;
        }
        match (self.len, self.weight) {
            (Some(len), Some(weight)) => write!(f, " holds {}, {}", entries(len), size(weight))?,
            (Some(len), None) => write!(f, " holds {}", entries(len))?,
            (None, Some(weight)) => write!(f, " holds {}", size(weight))?,
            (None, None) => {}
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let last = index + 1 == self.layers.len();
            write!(f, "\n{indent}{}", if last { "└─ " } else { "├─ " })?;
            layer.print(f, &format!("{indent}{}", if last { "   " } else { "│  " }))?;
        }
        Ok(())
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, "")
    }
}

/// `1 entry`, `10,000 entries`.
pub(crate) fn entries(count: u64) -> String {
    format!("{} {}", grouped(count), if count == 1 { "entry" } else { "entries" })
}

/// `10,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `512 B`, `1.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, rounded down, so that nothing needs a float.
    let mut power = 1;
    while power < UNITS.len() && bytes >> (10 * (power + 1)) > 0 {
        power += 1;
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    if tenths.is_multiple_of(10) {
        format!("{} {}", tenths / 10, UNITS[power - 1])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_prints_one_line_per_layer() {
        let stack = Description::new("chain")
            .over(
                Description::new("memory")
                    .with_count("max_entries", 10_000)
                    .holding(Some(812), Some(1_363_149)),
            )
            .over(
                Description::new("chain")
                    .over(Description::new("encoded").with("", "postcard").over(Description::new("redis")))
                    .over(Description::new("file").with("dir", "/c").holding(Some(1), None)),
            );
        assert_eq!(
            stack.to_string(),
            "chain\n\
             ├─ memory (max_entries 10,000) holds 812 entries, 1.3 MiB\n\
             └─ chain\n\
             \u{20}  ├─ encoded (postcard)\n\
             \u{20}  │  └─ redis\n\
             \u{20}  └─ file (dir /c) holds 1 entry"
        );
    }

    #[test]
    fn sizes_use_binary_units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1024), "1 KiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
    }
}
