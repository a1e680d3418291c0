//! Tasks that can be frozen, as SIGSTOP freezes a process: nothing of them runs, while time goes on for everybody else.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// The state that the tasks of one process share.
#[derive(Clone, Default)]
pub struct Ice(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Ice {
    /// `future`, which stands still while the ice is.
    pub async fn over<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            {
                let mut state = self.0.lock().unwrap();
                if state.0 {
                    state.1.push(context.waker().clone());
                    return Poll::Pending;
                }
            }
            future.as_mut().poll(context)
        })
        .await
    }

    /// Freezes or thaws.
    pub fn set(&self, frozen: bool) {
        let mut state = self.0.lock().unwrap();
        state.0 = frozen;
        if !frozen {
            state.1.drain(..).for_each(Waker::wake);
        }
    }
}
