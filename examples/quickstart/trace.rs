//! The requests: `web07`, see ATTRIBUTION.md.

use std::io::{Error, ErrorKind, Read};

use ruzstd::decoding::StreamingDecoder;

const WEB07: &[u8] = include_bytes!("web07.txt.zst");

/// The pages that were asked for, in order.
pub(crate) fn requests() -> Result<Vec<u32>, Error> {
    let mut text = String::new();
    StreamingDecoder::new(WEB07)
        .map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))?
        .read_to_string(&mut text)?;
    text.lines()
        .map(|line| {
            line.parse().map_err(|_| Error::new(ErrorKind::InvalidData, format!("not a page: {line}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn the_trace_is_whole() {
        let requests = super::requests().unwrap();
        let pages: HashSet<u32> = requests.iter().copied().collect();
        assert_eq!((requests.len(), pages.len()), (76_118, 20_484));
    }
}
