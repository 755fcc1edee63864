//! Users and rights: which clients can connect, and the grants that each receives.

use crate::acl::Acl;
use crate::failures::Failures;
use crate::flags::ListenerArguments;
use crate::lock::Lock;
use crate::settings::Reloaded;
use crate::users::Users;
use mqtt_sansio::broker::Grants;
use mqtt_sansio::codec::ReasonCode;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;
use zeroize::Zeroizing;

/// The users and their rights, as the files had them when they were last read.
pub(crate) struct Access {
    password_file: Option<PathBuf>,
    acl_file: Option<PathBuf>,
    users: Option<Arc<Users>>,
    acl: Option<Acl>,
    allow_anonymous: bool,
    failures: Failures,
}

/// The answer to a client that asks to connect.
pub(crate) enum Decision {
    Accept,
    Refuse(ReasonCode),
    /// After a while, its password is checked, by a thread that can block.
    Verify(Duration, Credentials),
}

/// A user name and a password, and those to check them against.
pub(crate) struct Credentials {
    users: Arc<Users>,
    name: String,
    /// Overwritten after the check.
    password: Zeroizing<Vec<u8>>,
}

impl Credentials {
    /// Whether there is such a user. Takes long.
    pub(crate) fn are_correct(&self) -> bool {
        self.users.verify(&self.name, &self.password)
    }
}

impl Access {
    /// Accepts each client, with all rights.
    pub(crate) fn all() -> Self {
        Self {
            password_file: None,
            acl_file: None,
            users: None,
            acl: None,
            allow_anonymous: true,
            failures: Failures::default(),
        }
    }

    pub(crate) fn read(arguments: &ListenerArguments) -> anyhow::Result<Self> {
        let users = arguments.password_file.as_deref().map(Users::read).transpose()?;
        let acl = arguments.acl_file.as_deref().map(Acl::read).transpose()?;
        if users.is_none() && acl.as_ref().is_some_and(Acl::names_users) {
            warn!(
                "the ACL file names users, but without --password-file no client can prove a name"
            );
        }
        Ok(Self {
            password_file: arguments.password_file.clone(),
            acl_file: arguments.acl_file.clone(),
            allow_anonymous: arguments.allow_anonymous.unwrap_or(users.is_none()),
            users: users.map(Arc::new),
            acl,
            failures: Failures::default(),
        })
    }

    /// Reads the files again, while others use what was read before. The content of a bad file is
    /// kept as it was.
    pub(crate) fn reload(access: &Lock<Self>) -> Vec<Reloaded> {
        let (password_file, acl_file) = {
            let access = access.lock();
            (access.password_file.clone(), access.acl_file.clone())
        };
        let users = password_file.map(|path| Users::read(&path));
        let acl = acl_file.map(|path| Acl::read(&path));
        let mut access = access.lock();
        let users = users.map(|users| users.map(|users| access.users = Some(Arc::new(users))));
        let acl = acl.map(|acl| acl.map(|acl| access.acl = Some(acl)));
        let all = [("users", users), ("rights", acl)].into_iter();
        all.filter_map(|(what, result)| Some((what, result?))).collect()
    }

    /// Decides about a CONNECT. A certificate can have proven the user name.
    pub(crate) fn decide(
        &mut self,
        address: Option<IpAddr>,
        user: Option<&str>,
        password: Option<&[u8]>,
        is_proven: bool,
    ) -> Decision {
        if is_proven {
            return Decision::Accept;
        }
        let (Some(users), Some(name)) = (&self.users, user) else {
            return match self.allow_anonymous {
                true => Decision::Accept,
                false => Decision::Refuse(ReasonCode::NOT_AUTHORIZED),
            };
        };
        let wait = match address {
            Some(address) => self.failures.attempt(address, Instant::now()),
            None => Some(Duration::ZERO),
        };
        let Some(wait) = wait else { return Decision::Refuse(ReasonCode::SERVER_BUSY) };
        let password = Zeroizing::new(password.unwrap_or_default().to_vec());
        let users = users.clone();
        Decision::Verify(wait, Credentials { users, name: name.to_owned(), password })
    }

    /// Counts a wrong password.
    pub(crate) fn failed(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.failures.record(address, Instant::now());
        }
    }

    /// Whether a user who has connected is still a user.
    pub(crate) fn still_allows(&self, user: Option<&str>, is_proven: bool) -> bool {
        match (&self.users, user) {
            _ if is_proven => true,
            (Some(users), Some(name)) => users.contains(name),
            _ => self.allow_anonymous,
        }
    }

    /// Returns the rights of a client. Its client identifier is empty if the broker assigns one.
    pub(crate) fn grants(&self, user: Option<&str>, client: &str) -> Grants {
        self.acl.as_ref().map_or_else(Grants::all, |acl| acl.grants(user, client))
    }
}
