//! A link: one connection to one other manager that is made, and made again, by itself and not by the calls that want it.
//!
//! Raft gives a call a few heartbeats' time at most. A channel that connects only while a call waits would throw away what of the
//! handshake was done whenever a call gives up, and find a path that has healed only seconds later.

use crate::rpc::dial::{Callee, Dialer};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

/// From one attempt to connect to the next.
const PAUSE: Duration = Duration::from_millis(300);
/// Attempts at the same time.
const ATTEMPTS: usize = 4;
/// A connection on which no call has succeeded for this long, though some were made, is replaced: the kernel's own repetitions come
/// ever later.
const SILENCE: Duration = Duration::from_secs(1);

/// A connection that keeps itself until it is dropped.
pub struct Link {
    /// The connection, or why there is none now.
    connection: watch::Sender<Result<Channel, String>>,
    /// Last sign of life.
    alive: Mutex<Instant>,
    _end: DropGuard,
}

impl Link {
    /// Begins to connect, and goes on until the link is dropped.
    pub fn open(dialer: Dialer, addr: String, callee: Callee) -> Arc<Self> {
        let connection = watch::Sender::new(Err(format!("not yet connected to {addr}")));
        let end = CancellationToken::new();
        let keeper = Keeper { connection: connection.clone(), dialer, addr, callee };
        tokio::spawn(end.clone().run_until_cancelled_owned(keeper.run()));
        Arc::new(Self { connection, alive: Mutex::new(Instant::now()), _end: end.drop_guard() })
    }

    fn alive(&self) -> MutexGuard<'_, Instant> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if it is there or comes in time; else why not.
    pub async fn channel(&self, limit: Duration) -> Result<Channel, String> {
        let mut connection = self.connection.subscribe();
        let made = async { connection.wait_for(Result::is_ok).await.is_ok() };
        drop(tokio::time::timeout(limit, made).await);
        connection.borrow().clone()
    }

    /// A call was answered.
    pub fn answered(&self) {
        *self.alive() = Instant::now();
    }

    /// A call got no answer in time.
    pub fn silent(&self) {
        let silence = self.alive().elapsed();
        if silence > SILENCE {
            self.broken("no answer");
        }
    }

    /// The connection is no good.
    pub fn broken(&self, why: &str) {
        // The next connection has as long to give a sign of life as any.
        self.answered();
        self.connection.send_if_modified(|connection| {
            let was = connection.is_ok();
            *connection = Err(why.to_owned());
            was
        });
    }
}

struct Keeper {
    connection: watch::Sender<Result<Channel, String>>,
    dialer: Dialer,
    addr: String,
    callee: Callee,
}

impl Keeper {
    async fn run(self) {
        let mut watched = self.connection.subscribe();
        loop {
            let channel = self.connect().await;
            drop(self.connection.send_replace(Ok(channel)));
            if watched.wait_for(Result::is_err).await.is_err() {
                return;
            }
        }
    }

    /// Connects. A new attempt begins while the last one still waits: on a path that has just healed the first packet of the new one comes
    /// through before the kernel repeats that of the old one.
    async fn connect(&self) -> Channel {
        let mut attempts = FuturesUnordered::new();
        loop {
            if attempts.len() < ATTEMPTS {
                attempts.push(self.dialer.connect(&self.addr, &self.callee));
            }
            let next = tokio::time::sleep(PAUSE);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    Some(connected) = attempts.next() => match connected {
                        Ok(channel) => return channel,
                        Err(error) => drop(self.connection.send_replace(Err(error.to_string()))),
                    },
                    () = &mut next => break,
                }
            }
        }
    }
}
