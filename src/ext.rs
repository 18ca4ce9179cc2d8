//! One method per adapter; each adapter's manual stands on its method.
