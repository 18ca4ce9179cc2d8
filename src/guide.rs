//! The guides, compiled so that every snippet in them is tested.

// The pages link to each other by reference and define each reference as a file, for who reads them as
// files. These definitions come first, so here they win.
macro_rules! pages {
    () => {
        "\
[semantics]: crate::guide::semantics
[when-loads-fail]: crate::guide::when_loads_fail
[writing-a-store]: crate::guide::writing_a_store
[writing-an-adapter]: crate::guide::writing_an_adapter
[testing-your-store]: crate::guide::testing_your_store
[tags]: crate::guide::tags
[testing]: crate::guide::testing
[contributing]: crate::guide::contributing
[wire-format]: crate::guide::wire_format
[early-refresh]: crate::guide::early_refresh
[early-refresh-chart]: #the-chart
[design]: crate::guide::design
[architecture]: crate::guide::architecture
[batches]: crate::guide::batches
[performance]: crate::guide::performance
"
    };
}

macro_rules! guide {
    ($name:ident, $summary:literal, $page:literal $(, $more:expr)?) => {
        #[doc = $summary]
        // A definition cannot follow a paragraph without a blank line.
        #[doc = ""]
        #[doc = pages!()]
        #[doc = include_str!($page)]
        $(#[doc = $more])?
        pub mod $name {}
    };
}

guide!(semantics, "What every stack promises: the laws, by name.", "../docs/semantics.md");
guide!(
    when_loads_fail,
    "What a caller sees when the origin is slow, down, or says \"not found\".",
    "../docs/when-loads-fail.md"
);
guide!(writing_a_store, "How to write a store, with a checklist of files.", "../docs/writing-a-store.md");
guide!(
    writing_an_adapter,
    "How to write an adapter, with a checklist of files.",
    "../docs/writing-an-adapter.md"
);
#[cfg(feature = "testkit")]
guide!(
    testing_your_store,
    "How to test a store of yours by the laws, from an empty file to a green table.",
    "../docs/testing-your-store.md"
);
/// How to test a store of yours. The page needs the feature `testkit`, as its programs do.
#[cfg(not(feature = "testkit"))]
pub mod testing_your_store {}
guide!(tags, "How entries are invalidated by what they were made of.", "../docs/tags.md");
guide!(testing, "How larder is tested: the kit, its laws, the bugs that it must find.", "../docs/testing.md");
guide!(contributing, "How to change larder: habits, tests, commits.", "../docs/contributing.md");
guide!(batches, "Many keys at once: the calls, their outcomes, what they cost.", "../docs/batches.md");
guide!(
    wire_format,
    "The byte form of an entry, for whoever reads or writes it elsewhere.",
    "../docs/wire-format.md"
);
guide!(
    early_refresh,
    "When many values expire at once: jitter, stale windows, early refresh, a budget.",
    "../docs/early-refresh.md",
    // A picture beside the page is not there in rustdoc, but what it is made of can be.
    concat!("\n\n# The chart\n\n<div>\n", include_str!("../docs/early-refresh.svg"), "\n</div>")
);
guide!(design, "Why larder is built as it is.", "../docs/design.md");
guide!(architecture, "A map of the code by name.", "../docs/architecture.md");
guide!(performance, "What each layer costs, as ratios, and how to measure them.", "../docs/performance.md");

/// The store of [`testing_your_store`], and what the page says of it.
#[cfg(test)]
#[expect(unreachable_pub, reason = "in the package of the guide it is public")]
mod sqlite {
    include!("guide/sqlite.rs");
    include!("guide/clear_prefix.rs");

    use crate::testkit::{Site, conformance};

    #[expect(clippy::needless_pass_by_value, reason = "the kit hands the site over")]
    fn open(site: Site) -> Sqlite {
        Sqlite::open(&site.directory().join("cache.sqlite")).unwrap()
    }

    conformance! {
        name: a_sqlite_store,
        store: open,
        promises: |check| check.counts().clears_prefixes().reopen(open).second_client(open).cases(8),
    }

    #[test]
    fn the_page_shows_the_store_that_is_tested() {
        let page = include_str!("../docs/testing-your-store.md");
        assert!(page.contains(include_str!("guide/sqlite.rs")));
        assert!(page.contains(include_str!("guide/clear_prefix.rs")));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn guides() -> Vec<PathBuf> {
        let items = fs::read_dir(root().join("docs")).unwrap().map(|item| item.unwrap().path());
        items.filter(|path| path.extension() == Some("md".as_ref())).collect()
    }

    fn prose(page: &Path) -> String {
        let text = fs::read_to_string(page).unwrap();
        // Every other part stands between fences.
        text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
    }

    /// The targets of `[..](target)`.
    fn inline(prose: &str) -> Vec<&str> {
        prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
    }

    /// The label and the target of each line `[label]: target`.
    fn defined(prose: &str) -> Vec<(&str, &str)> {
        prose.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect()
    }

    #[test]
    fn every_link_to_a_file_finds_it() {
        let pages = ["README.md", "CHANGELOG.md", "stores/file/README.md"].map(|page| root().join(page));
        for page in guides().into_iter().chain(pages) {
            let prose = prose(&page);
            let targets = inline(&prose).into_iter().chain(defined(&prose).into_iter().map(|(_, to)| to));
            for target in targets.filter(|target| !target.starts_with("https://")) {
                let file = target.split('#').next().unwrap();
                assert!(page.with_file_name("").join(file).exists(), "{}: {target}", page.display());
            }
        }
    }

    #[test]
    fn a_link_between_guides_works_here_too() {
        let here = defined(pages!());
        for page in guides() {
            let (name, prose) = (page.display(), prose(&page));
            assert!(inline(&prose).iter().all(|to| to.starts_with("https://")), "{name}: link by reference");
            for (label, target) in defined(&prose) {
                if Path::new(target).extension() == Some("svg".as_ref()) {
                    continue;
                }
                assert_eq!(target, format!("{label}.md"), "{name}");
                let module = format!("crate::guide::{}", label.replace('-', "_"));
                assert!(here.contains(&(label, module.as_str())), "{name}: [{label}] is not among `pages`");
            }
        }
    }
}
