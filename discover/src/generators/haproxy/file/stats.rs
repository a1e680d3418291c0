//! HAProxy's stats page: where it listens, and who may read it. It shows, and changes nothing: `stats admin` is nowhere in the file.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::Port;

use crate::haproxy::words::bind::ListenOn;

/// The most users that a file may name.
const MOST_USERS: usize = 100;

/// What the operator decides about the stats page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Its port, if there is one.
    pub port: Option<Port>,
    /// Its addresses; none: those on which services listen.
    pub listen: Option<ListenOn>,
    /// Who may read it; empty: everybody who reaches it.
    pub users: Vec<StatsUser>,
}

/// A user of the stats page, as a line of HAProxy's `userlist` has it, without the keyword.
#[derive(Clone, PartialEq, Eq)]
pub struct StatsUser(String);

impl StatsUser {
    /// The words of the line. Secret.
    pub fn words(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StatsUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A file of users that cannot be used. No password is quoted.
#[derive(Debug, thiserror::Error)]
#[error("reading the users of the stats page (--stats-auth-file) from {}: {why}", path.display())]
pub struct StatsUsersError {
    path: PathBuf,
    why: String,
}

/// Reads `USER:PASSWORD` lines. A password that begins with `$` is a hash of crypt(3), which HAProxy compares with what it is shown
/// (`openssl passwd -5`); any other is the password itself. Blank lines and those that begin with `#` say nothing.
///
/// # Errors
/// [`StatsUsersError`] with the line's number.
pub fn read_users(path: &Path) -> Result<Vec<StatsUser>, StatsUsersError> {
    let wrong = |why: String| StatsUsersError { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let user = |(at, line): (usize, &str)| user(line).map_err(|why| wrong(format!("line {}: {why}", at + 1)));
    let users = lines.map(user).collect::<Result<Vec<_>, _>>()?;
    match users.len() {
        // Nobody at all would be everybody.
        0 => Err(wrong("it names no user".into())),
        1..=MOST_USERS => Ok(users),
        _ => Err(wrong(format!("it names more than {MOST_USERS} users"))),
    }
}

fn user(line: &str) -> Result<StatsUser, &'static str> {
    let (name, password) = line.trim_end().split_once(':').ok_or("it is not USER:PASSWORD")?;
    let named = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(named) {
        return Err("the user is not 1 to 64 letters, digits, . _ @ or -");
    }
    // Between single quotes HAProxy takes every character as it is, but for the quote.
    if !(1..=256).contains(&password.len()) || !password.chars().all(|c| c != '\'' && !c.is_control()) {
        return Err("the password is not 1 to 256 characters without ' and control characters");
    }
    let kind = if password.starts_with('$') { "password" } else { "insecure-password" };
    Ok(StatsUser(format!("{name} {kind} '{password}'")))
}

/// `none`, or addresses with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsListen {
    /// There is no stats page.
    None,
    These(Vec<IpAddr>),
}

impl FromStr for StatsListen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let addresses = text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>();
        addresses.map(Self::These).map_err(|_| format!("{text:?} is neither none nor addresses with commas between"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_a_fault_names_its_line_and_no_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_users(&path)
        };
        let users = read("# who\nops:p\"a$HOME \\ #:s\n\nprom:$5$salt$hash\n").unwrap();
        let words: Vec<&str> = users.iter().map(StatsUser::words).collect();
        assert_eq!(words, ["ops insecure-password 'p\"a$HOME \\ #:s'", "prom password '$5$salt$hash'"]);
        assert!(!format!("{users:?}").contains("HOME"));
        for (text, why) in [
            ("", "no user"),
            ("# nobody\n", "no user"),
            ("a:b\nhidden", "line 2: it is not USER:PASSWORD"),
            ("a:hid'den", "line 1: the password"),
            ("a:hid\u{7f}den", "line 1: the password"),
            ("a:", "line 1: the password"),
            ("a b:hidden", "line 1: the user"),
            (":hidden", "line 1: the user"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("users") && !error.contains("hid"), "{error}");
        }
        assert!(read_users(Path::new("/none/users")).unwrap_err().to_string().contains("/none/users"));
    }

    #[test]
    fn where_it_listens_is_none_or_addresses() {
        assert_eq!("none".parse(), Ok(StatsListen::None));
        let two = StatsListen::These(vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
        assert_eq!("127.0.0.1, ::1".parse(), Ok(two));
        for bad in ["", "off", "127.0.0.1:1936", "localhost", "127.0.0.1,"] {
            assert!(bad.parse::<StatsListen>().is_err(), "{bad}");
        }
    }
}
