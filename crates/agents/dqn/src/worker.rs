//! The learner's side of the loop: inline, or in a thread of its own while the actor acts.
//!
//! Both sides exchange *chunks*: the steps between two updates, and the updates that are due for them. Inline, each waits for the
//! other. Overlapped, the learner works on chunk k while the actor collects chunk k + 1 with the weights of chunk k − 1:
//!
//! ```text
//! inline        collect 1 │ learn 1 │ collect 2 │ learn 2 │ …
//! overlapped    collect 1 │ collect 2, learn │ collect 3, learn │ …     weights are one chunk old
//!                         │ learn 1          │ learn 2          │ …
//! ```
//!
//! An update takes longer than the steps between two, so the acting thread, when it has collected, computes a fixed share of each
//! batch ([`ShardWorker`]).
//!
//! A chunk is owned by one side at a time, so there is nothing to lock, and a seed gives the same run whatever the timing. Two
//! chunks are in use when the sides overlap, each with its buffers.

use crate::clock::Due;
use crate::learner::{Learner, Losses, ShardWorker};
use crate::replay::Replay;
use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::select;
use playfield_collect::Experience;
use playfield_core::{EnvSpec, Error, Normalizer, Persist, Result, Snapshot};
use playfield_nn::QNetwork;
use playfield_nn::sharding::use_one_core;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the two sides exchange: the actor fills in the steps, the learner the rest.
#[derive(Debug)]
pub struct Chunk {
    /// Steps of all environments.
    pub steps: Vec<Experience>,
    /// The updates that are due for them, in order.
    pub due: Vec<Due>,
    /// Normalizes sampled transitions: the replay buffer holds raw observations.
    pub normalizer: Option<Normalizer>,
    /// Receives a copy of the online network, for the actor.
    pub network: QNetwork,
    /// The number of updates of that copy.
    pub version: u64,
    /// The last update, if there was one.
    pub losses: Option<Losses>,
    /// The number of transitions that can be sampled.
    pub buffer_len: usize,
    /// The time of one update.
    pub update_time: Option<Duration>,
}

/// The learner and its replay buffer.
#[derive(Debug)]
pub struct Worker {
    /// The networks and the optimizer.
    pub learner: Learner,
    /// The replay buffer.
    pub replay: Replay,
    /// Whether every rank has a transition that can be sampled.
    ready: bool,
}

impl Worker {
    /// A learner with its replay buffer.
    pub fn new(learner: Learner, replay: Replay) -> Self {
        Self { learner, replay, ready: false }
    }

    /// An empty chunk of `steps` steps of `n` environments of `spec`.
    pub fn chunk(&self, spec: &EnvSpec, n: usize, steps: usize) -> Chunk {
        Chunk {
            steps: vec![Experience::new(spec, n); steps],
            due: Vec::new(),
            normalizer: None,
            network: self.learner.online().deep_clone(),
            version: self.learner.updates(),
            losses: None,
            buffer_len: self.replay.len(),
            update_time: None,
        }
    }

    /// Stores the steps, then makes the updates that are due. No update is made before a transition can be sampled, on every rank.
    fn work(&mut self, chunk: &mut Chunk) -> Result<()> {
        chunk.steps.iter().for_each(|step| self.replay.push(step));
        if !self.ready && chunk.updates() > 0 {
            self.ready = !self.learner.group().any(self.replay.is_empty())?;
        }
        let (start, before) = (Instant::now(), self.learner.updates());
        for due in &chunk.due {
            match *due {
                Due::Update { .. } if !self.ready => self.learner.skip_update(),
                Due::Update { beta, learning_rate } => {
                    let rates = (beta, learning_rate);
                    let losses = self.replay.train(&mut self.learner, rates, chunk.normalizer.as_ref())?;
                    if !losses.is_finite() {
                        return Err(Error::Diverged(format!(
                            "the loss is {} and the gradient's norm {} at update {}",
                            losses.loss,
                            losses.grad_norm,
                            self.learner.updates()
                        )));
                    }
                    chunk.losses = Some(losses);
                }
                Due::UpdateTarget { tau } => self.learner.update_target(tau),
            }
        }
        let updates = self.learner.updates() - before;
        chunk.update_time = (updates > 0).then(|| start.elapsed() / updates as u32);
        if chunk.version != self.learner.updates() {
            chunk.network.copy_from(self.learner.online());
            chunk.version = self.learner.updates();
        }
        chunk.buffer_len = self.replay.len();
        Ok(())
    }
}

impl Chunk {
    /// The number of updates of the online network that are due.
    pub fn updates(&self) -> u64 {
        self.due.iter().filter(|due| matches!(due, Due::Update { .. })).count() as u64
    }
}

enum Message {
    Work(Box<Chunk>),
    Do(Box<dyn FnOnce(&mut Worker) + Send>),
}

/// The worker as the actor's side sees it.
pub enum LearnerHandle {
    /// It works while the actor waits.
    Inline(Box<Worker>),
    /// It works in a thread of its own.
    Thread(WorkerThread),
}

/// The worker's thread, which ends when this is dropped.
pub struct WorkerThread {
    shard: Option<ShardWorker>,
    /// Updates of the last chunk sent, until this side has done its share of them.
    pending: u64,
    tasks: Option<Sender<Message>>,
    chunks: Receiver<Result<Chunk>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl LearnerHandle {
    /// A worker that works while the actor waits.
    pub fn inline(worker: Worker) -> Self {
        Self::Inline(Box::new(worker))
    }

    /// A worker in a thread of its own. `spare` is the second chunk in use.
    pub fn thread(mut worker: Worker, spare: Chunk) -> Self {
        let (tasks, inbox) = bounded(2);
        let (outbox, chunks) = bounded(2);
        outbox.send(Ok(spare)).expect("room for the first");
        let (alive, ended) = bounded(0);
        let shard = worker.learner.shard_worker();
        let thread = thread::spawn(move || {
            let _alive: Sender<()> = alive;
            use_one_core();
            for message in inbox {
                match message {
                    Message::Do(task) => task(&mut worker),
                    Message::Work(mut chunk) => {
                        let worked = worker.work(&mut chunk).map(|()| *chunk);
                        let failed = worked.is_err();
                        if outbox.send(worked).is_err() || failed {
                            return;
                        }
                    }
                }
            }
        });
        Self::Thread(WorkerThread { shard, pending: 0, tasks: Some(tasks), chunks, ended, thread: Some(thread) })
    }

    /// Sends a chunk of steps, and returns one that was learned from: the same, or, overlapped, the one before.
    ///
    /// # Errors
    /// Where learning failed.
    pub fn exchange(&mut self, mut chunk: Chunk) -> Result<Chunk> {
        match self {
            Self::Inline(worker) => worker.work(&mut chunk).map(|()| chunk),
            Self::Thread(thread) => {
                thread.work();
                thread.pending = chunk.updates();
                // Where the worker has failed, the error is among the chunks.
                let _ = thread.send(Message::Work(Box::new(chunk)));
                thread.chunks.recv().unwrap_or_else(|_| Err(thread.failed()))
            }
        }
    }

    /// Runs `task` on the worker, after all updates that were sent.
    ///
    /// # Errors
    /// Where learning failed.
    pub fn with<T: Send + 'static>(&mut self, task: impl FnOnce(&mut Worker) -> T + Send + 'static) -> Result<T> {
        match self {
            Self::Inline(worker) => Ok(task(worker)),
            Self::Thread(thread) => {
                thread.work();
                let (sender, result) = bounded(1);
                let sent = thread.send(Message::Do(Box::new(move |worker| _ = sender.send(task(worker)))));
                // A task that waits behind an update that fails stays in its channel.
                let done = sent.and_then(|()| {
                    select! {
                        recv(result) -> done => done.ok(),
                        recv(thread.ended) -> _ => result.try_recv().ok(),
                    }
                });
                done.ok_or_else(|| thread.failed())
            }
        }
    }
}

impl WorkerThread {
    /// Computes this side's share of the pending updates.
    fn work(&mut self) {
        if let Some(shard) = &self.shard {
            shard.run(std::mem::take(&mut self.pending));
        }
    }

    fn send(&self, message: Message) -> Option<()> {
        self.tasks.as_ref()?.send(message).ok()
    }

    /// The error that ended the thread; resumes its panic.
    fn failed(&mut self) -> Error {
        self.tasks = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
        let error = self.chunks.try_iter().find_map(Result::err);
        error.unwrap_or_else(|| Error::other("learning has ended with an error"))
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        // The worker may wait for this side's share of an update: it must be able to finish, and ends with the tasks. Where that
        // share is what failed, the closed channel tells it.
        self.work();
        self.shard = None;
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported already, or matters less than the error being returned.
            let _ = thread.join();
        }
    }
}

/// The networks, the optimizer and the replay buffer, after everything that was sent before.
impl Persist for LearnerHandle {
    fn save(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let saved = self.with(|worker| {
            let mut snapshot = Snapshot::default();
            worker.learner.save(&mut snapshot);
            worker.replay.save(&mut snapshot).map(|()| snapshot)
        });
        saved?.map(|saved| snapshot.extend(saved))
    }

    fn saved(&mut self) -> Result<()> {
        self.with(|worker| worker.replay.saved())?
    }
}
