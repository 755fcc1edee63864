//! The things that happen to a broker, each from its first step to its last.

pub(super) mod close;
pub(super) mod connect;
pub(super) mod exchange;
pub(super) mod publish;
pub(super) mod subscribe;
