//! A gate lets one thread at a time derive and write what is told about one sandbox: the rules inside it, and its names.
//!
//! What is written is derived from the newest state *behind* the gate, so an older state never overwrites a newer one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The gates of all sandboxes. One exists only while somebody is at it.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    open: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl Gates {
    /// Does something while nobody else does anything behind the same sandbox's gate.
    pub fn pass<T>(&self, sandbox: &str, work: impl FnOnce() -> T) -> T {
        let gate = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(open.entry(sandbox.to_owned()).or_default())
        };
        let result = {
            let _alone = gate.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        drop(gate);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Copies are made under the lock of the map only: with one left, which is the map's, nobody is at the gate.
        if open.get(sandbox).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            open.remove(sandbox);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_at_a_time_passes_and_nothing_stays() {
        let (gates, inside) = (Gates::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        gates.pass("a", || {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
            scope.spawn(|| gates.pass("b", || gates.pass("c", || ())));
        });
        assert!(gates.open.lock().unwrap().is_empty());
    }
}
