//! The kit over this crate's own stacks, adapters and chains.

use crate::testkit::check_stacks;

/// D2, C7: whatever a stack is made of, and however it is rewritten.
#[test]
fn any_stack_keeps_the_laws() {
    check_stacks().source(file!()).assert();
}
