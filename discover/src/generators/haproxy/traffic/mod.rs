//! What HAProxy itself says of the services: who can take a request, and what it counted.
//!
//! | module | what it holds | I/O |
//! |---|---|---|
//! | [`asking`] | HAProxy asked about all servers, when somebody looks | asks only |
//! | [`seen`] | its answer: states and counters | no |
//! | [`samples`] | what the sections counted in the last minutes | no |
//! | [`pools`] | which pools have a server that works, and what changed | no |
//!
//! There are two questions, as they differ in who waits for the answer.
//!
//! *What of every server?* (`show stat -1 6 -1`) costs half a kilobyte for each server. Nobody needs it while nobody looks, so it is asked for the status, the
//! page, `/services` and a scrape, at most once a second (for the page's stream and the history for at most 1/50 of the time), over a connection of its own: a turn may hold the other one for seconds.
//!
//! *Which pools work?* must be known without anybody looking, for the log. `show stat -1 2 -1` has the sections' own counts of servers that can take a request, in
//! a third of a kilobyte for each section, however many servers there are. A turn asks it over its open session: once a second, which is within the interval of any usual
//! check, while HAProxy checks a server, else every 10 s; and never for more than 1/200 of the time, which counts from some hundred sections on (5,000 take HAProxy 3.0 and us
//! 30 ms, measured; all of 10,000 servers 84 ms). `show servers state` is shorter where pools are small (65 bytes for a server), but then discover would have to know what each version
//! takes for usable. What HAProxy logs about its checks comes at once and costs nothing, but needs a `log` line in the operator's text, or the output of a process that may be
//! somebody else's.

pub mod asking;
pub mod pools;
pub mod samples;
pub mod seen;
