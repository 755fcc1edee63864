//! The fields at the end of six packet types of 5.0: a reason code and properties. Both can be
//! omitted. [5.0 §3.4.2.1] [5.0 §3.4.2.2.1] [5.0 §3.14.2.1] [5.0 §3.14.2.2.1] [5.0 §3.15.2.1]

/// Implements the ending for the type of a packet, whose file invokes it.
macro_rules! reason_at_end {
    ($($name:ident)*) => {
        $(impl $name<'_> {
            /// Whether the ending says only "success", so that it is omitted.
            #[inline(always)]
            fn says_nothing(&self) -> bool {
                self.reason_code == ReasonCode::SUCCESS && self.properties.is_empty()
            }

            /// Writes the ending.
            #[inline(always)]
            fn write_ending<S: Sink>(&self, sink: &mut S, rules: Rules) {
                if !self.says_nothing() {
                    sink.u8(self.reason_code.get());
                    self.properties.write(rules.version, sink);
                }
            }
        })*
    };
}

pub(super) use reason_at_end;
