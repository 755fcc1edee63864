//! The end that six packets of 5.0 have: a reason code and properties.

/// The end that six packets of 5.0 have: a reason code and properties, which are left out where
/// they say nothing.
macro_rules! reason_at_end {
    ($($name:ident)*) => {
        $(impl $name<'_> {
            /// [5.0 §3.4.2.1] [5.0 §3.4.2.2.1] [5.0 §3.14.2.1] [5.0 §3.14.2.2.1] [5.0 §3.15.2.1]
            #[inline(always)]
            pub(super) fn says_nothing(&self) -> bool {
                self.reason_code == ReasonCode::SUCCESS && self.properties.is_empty()
            }

            #[inline(always)]
            pub(super) fn encode_reason<S: Sink>(&self, sink: &mut S, rules: Rules) -> Result<(), EncodeError> {
                if self.says_nothing() {
                    return Ok(());
                }
                sink.u8(self.reason_code.get());
                self.properties.encode(rules.version, sink)
            }
        })*
    };
}

pub(super) use reason_at_end;
