//! A mutex without poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. After a panic of another holder the value counts as it is: what is behind a mutex here is whole at every moment.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
