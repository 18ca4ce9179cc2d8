//! The kit over this crate's own stacks, adapters and chains.

use crate::adapters::Chain;
use crate::testkit::{check_chain, check_stacks};

/// D2, C7: whatever a stack is made of, and however it is rewritten.
#[test]
fn any_stack_keeps_the_laws() {
    check_stacks().source(file!()).assert();
}

/// C1 to C8.
#[test]
fn a_chain_keeps_the_laws() {
    check_chain("chain", |upper, lower, clock| Chain::new(upper, lower).clock(clock))
        .source(file!())
        .assert();
}

/// The same, but for what a strict chain takes back.
#[test]
fn a_strict_chain_keeps_the_laws() {
    let strict =
        check_chain("strict chain", |upper, lower, clock| Chain::new(upper, lower).clock(clock).strict());
    strict.strict().source(file!()).assert();
}
