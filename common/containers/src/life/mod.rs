//! A container's life from start to stop, and what is to be published meanwhile.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | [`alarms`] | when each container changes by itself | no |
//! | `decided` | what is decided about the containers, and what follows from that alone | the log |
//! | [`drain`] | which containers drain, why, and until when | no |
//! | [`handover`] | which containers are replaced by others | no |
//! | [`warmup`] | the weight of a backend that has just become ready | no |
//! | [`reason`] | why a port stands as it does: a closed set of words | no |
//! | [`row`] | what is shown of a port | no |
//! | [`standings`] | one line in the log for each change of standing | the log |
//! | [`runs`] | which containers end again and again | no |
//! | [`keeper`] | all of it kept together, for one daemon | by way of `readiness` |
//! | [`judging`] | what becomes of those for which something changed | no |
//! | [`verdict`] | candidate × readiness × drain → how it is published, and why | no |

pub mod alarms;
mod decided;
pub mod drain;
pub mod handover;
pub mod judging;
pub mod keeper;
pub mod reason;
pub mod row;
pub mod runs;
pub mod standings;
pub mod verdict;
pub mod warmup;

#[cfg(test)]
mod tests;
