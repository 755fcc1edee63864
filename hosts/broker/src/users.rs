//! Users and their passwords, in the format of mosquitto's password file.

use crate::lines;
use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};
use std::collections::HashMap;
use std::path::Path;
use subtle::ConstantTimeEq as _;

/// The users that can connect with a password.
#[derive(Debug)]
pub(crate) struct Users {
    hashes: HashMap<String, Hash>,
    /// Checked for a user who does not exist, so that the time does not show which users do.
    decoy: Hash,
}

/// The hash of a password.
#[derive(Clone, Debug)]
struct Hash {
    /// For PBKDF2, `$7$`; otherwise, `$6$`, the password is hashed once.
    iterations: Option<u32>,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Users {
    /// Reads a file that `mosquitto_passwd` has written.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        lines::read(path, Self::parse)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut hashes = HashMap::new();
        lines::for_each(text, |line| {
            let (name, hash) = line.split_once(':').context("expected NAME:HASH")?;
            ensure!(!name.is_empty(), "expected a user name before `:`");
            let hash = Hash::parse(hash)?;
            let double = hashes.insert(name.to_owned(), hash).is_some();
            ensure!(!double, "user {name:?} is in the file twice");
            Ok(())
        })?;
        let decoy = Hash { iterations: Some(101), salt: vec![0; 12], hash: vec![0; 64] };
        let decoy = hashes.values().max_by_key(|hash| hash.iterations).unwrap_or(&decoy).clone();
        Ok(Self { hashes, decoy })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.hashes.contains_key(name)
    }

    /// Whether the user exists and has this password. The time shows neither.
    pub(crate) fn verify(&self, name: &str, password: &[u8]) -> bool {
        match self.hashes.get(name) {
            Some(hash) => hash.verify(password),
            None => {
                self.decoy.verify(password);
                false
            }
        }
    }
}

impl Hash {
    /// Parses `$6$SALT$HASH` or `$7$ITERATIONS$SALT$HASH`, with salt and hash in base64.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let fields: Vec<_> = text.split('$').collect();
        let (iterations, salt, hash) = match fields.as_slice() {
            ["", "6", salt, hash] => (None, salt, hash),
            ["", "7", iterations, salt, hash] => {
                let iterations = iterations.parse().ok().filter(|iterations| *iterations > 0);
                (Some(iterations.context("expected a number of iterations")?), salt, hash)
            }
            ["", kind, ..] => bail!("expected a hash of kind 6 or 7, found kind {kind:?}"),
            _ => bail!("expected a hash; `mosquitto_passwd -U FILE` converts plain passwords"),
        };
        let salt = STANDARD.decode(salt).context("expected a salt in base64")?;
        let hash = STANDARD.decode(hash).context("expected a hash in base64")?;
        ensure!(hash.len() == 64, "expected a hash of 64 bytes, found {} bytes", hash.len());
        Ok(Self { iterations, salt, hash })
    }

    fn verify(&self, password: &[u8]) -> bool {
        let mut hash = [0; 64];
        match self.iterations {
            Some(iterations) => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, &self.salt, iterations, &mut hash);
            }
            None => {
                let digest = Sha512::new().chain_update(password).chain_update(&self.salt);
                hash.copy_from_slice(&digest.finalize());
            }
        }
        hash.ct_eq(self.hash.as_slice()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_line_is_refused_with_its_number_and_reason() {
        for (text, expected) in [
            ("a", "line 1: expected NAME:HASH"),
            ("\n# comment\na:plain", "line 3: expected a hash; `mosquitto_passwd -U FILE`"),
            ("a:$5$x$y", "line 1: expected a hash of kind 6 or 7, found kind \"5\""),
            ("a:$6$AAAA$AAAA", "line 1: expected a hash of 64 bytes, found 3 bytes"),
            ("a:$7$0$AAAA$AAAA", "line 1: expected a number of iterations"),
        ] {
            let error = format!("{:#}", Users::parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
