//! The learner's side of the loop: right here, or on a thread of its own while the actor plays on.
//!
//! Both sides work in *rounds*: the actor plays the steps between two updates, the learner does the updates that are due
//! for them. In lockstep one waits for the other. Overlapped, the learner works on round k while the actor plays round
//! k + 1 with the weights of round k − 1:
//!
//! ```text
//! lockstep      play 1 │ learn 1 │ play 2 │ learn 2 │ …
//! overlapped    play 1 │ play 2, help │ play 3, help │ …     by weights that are one round old
//!                      │ learn 1      │ learn 2      │ …
//! ```
//!
//! An update takes longer than the steps between two, so the actor, when it has played, [helps](ShardWorker) with the update that
//! is under way: a fixed share of the batch is its own.
//!
//! What goes from one to the other is owned by one of them at a time, so there is nothing to lock, and the same seed gives
//! the same run however fast either side is. Two rounds are under way when they overlap, each with its buffers.

use crate::clock::Due;
use crate::learner::{Learner, Losses, ShardWorker};
use crate::replay::Replay;
use crossbeam::channel::{Receiver, Sender, bounded};
use playfield_core::{Actions, EnvSpec, Error, Normalizer, Result, StepBatch};
use playfield_nn::QNetwork;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a round holds: first what was played, then what was learned.
#[derive(Debug)]
pub struct Round {
    /// The steps played, each of all environments.
    pub steps: Vec<Played>,
    /// What is due for them, in order.
    pub due: Vec<Due>,
    /// By which transitions are normalized when they are sampled: the replay buffer holds what was observed.
    pub normalizer: Option<Normalizer>,
    /// Room for the weights that it ends with: what the actor plays by next.
    pub network: QNetwork,
    /// How many updates those weights have seen.
    pub version: u64,
    /// What the last update yielded.
    pub losses: Option<Losses>,
    /// How many transitions could be drawn after it.
    pub replay_len: usize,
    /// How long one update took.
    pub learn_time: Option<Duration>,
}

/// What was done in one step, and what came of it.
#[derive(Clone, Debug)]
pub struct Played {
    /// What the actor chose.
    pub actions: Actions,
    /// What the environments answered.
    pub batch: StepBatch,
}

/// What learns, and what it learns from.
#[derive(Debug)]
pub struct Learning {
    /// The networks and the optimizer.
    pub learner: Learner,
    /// The memory.
    pub replay: Replay,
}

impl Learning {
    /// An empty round of `steps` steps of `n` environments of `spec`.
    pub fn round(&self, spec: &EnvSpec, n: usize, steps: usize) -> Round {
        let played = Played { actions: Actions::zeros(&spec.actions, n), batch: StepBatch::new(spec, n) };
        Round {
            steps: vec![played; steps],
            due: Vec::new(),
            normalizer: None,
            network: self.learner.online().deep_clone(),
            version: self.learner.updates(),
            losses: None,
            replay_len: self.replay.len(),
            learn_time: None,
        }
    }

    /// Stores what was played, then makes the updates and target moves that are due. No update is made before a transition can
    /// be sampled.
    fn work(&mut self, round: &mut Round) -> Result<()> {
        round.steps.iter().for_each(|s| self.replay.push(&s.actions, &s.batch));
        let (start, before) = (Instant::now(), self.learner.updates());
        for due in &round.due {
            match *due {
                Due::Update { .. } if self.replay.is_empty() => self.learner.skip_update(),
                Due::Update { beta } => {
                    let losses = self.replay.learn(&mut self.learner, beta, round.normalizer.as_ref())?;
                    if !losses.is_finite() {
                        return Err(Error::Diverged(format!(
                            "the loss is {} and the gradient's norm {} at update {}",
                            losses.loss,
                            losses.grad_norm,
                            self.learner.updates()
                        )));
                    }
                    round.losses = Some(losses);
                }
                Due::MoveTarget { rate } => self.learner.update_target(rate),
            }
        }
        let made = self.learner.updates() - before;
        round.learn_time = (made > 0).then(|| start.elapsed() / made as u32);
        if round.version != self.learner.updates() {
            round.network.copy_from(self.learner.online());
            round.version = self.learner.updates();
        }
        round.replay_len = self.replay.len();
        Ok(())
    }
}

impl Round {
    /// How many updates are due.
    pub fn updates(&self) -> u64 {
        self.due.iter().filter(|due| matches!(due, Due::Update { .. })).count() as u64
    }
}

enum Message {
    Work(Box<Round>),
    Do(Box<dyn FnOnce(&mut Learning) + Send>),
}

/// The learner as the actor sees it.
pub enum Partner {
    /// It works while the actor waits.
    Here(Box<Learning>),
    /// It works on a thread of its own.
    There(Worker),
}

/// A learner's thread. It ends when this is dropped.
pub struct Worker {
    helper: Option<ShardWorker>,
    /// Updates of the round that was handed over last, until this side has done its share in them.
    under_way: u64,
    tasks: Option<Sender<Message>>,
    rounds: Receiver<Result<Round>>,
    thread: Option<JoinHandle<()>>,
}

impl Partner {
    /// A learner that works in lockstep.
    pub fn here(learning: Learning) -> Self {
        Self::Here(Box::new(learning))
    }

    /// A learner on a thread of its own. `spare` are the buffers of the second round under way.
    pub fn there(mut learning: Learning, spare: Round) -> Self {
        let (tasks, inbox) = bounded(2);
        let (outbox, rounds) = bounded(2);
        outbox.send(Ok(spare)).expect("room for the first");
        let helper = learning.learner.shard_worker();
        let thread = thread::spawn(move || {
            for message in inbox {
                match message {
                    Message::Do(task) => task(&mut learning),
                    Message::Work(mut round) => {
                        let worked = learning.work(&mut round).map(|()| *round);
                        let failed = worked.is_err();
                        if outbox.send(worked).is_err() || failed {
                            return;
                        }
                    }
                }
            }
        });
        Self::There(Worker { helper, under_way: 0, tasks: Some(tasks), rounds, thread: Some(thread) })
    }

    /// Hands over a round that was played, and returns one that was learned: the same, or, overlapped, the one before.
    ///
    /// # Errors
    /// Where learning failed.
    pub fn exchange(&mut self, mut round: Round) -> Result<Round> {
        match self {
            Self::Here(learning) => learning.work(&mut round).map(|()| round),
            Self::There(worker) => {
                worker.help();
                worker.under_way = round.updates();
                // Where the learner has failed, the reason waits among the rounds.
                let _ = worker.send(Message::Work(Box::new(round)));
                match worker.rounds.recv() {
                    Ok(learned) => learned,
                    Err(_) => worker.panicked(),
                }
            }
        }
    }

    /// Does something with the learner, after everything that was handed over.
    pub fn with<T: Send + 'static>(&mut self, task: impl FnOnce(&mut Learning) -> T + Send + 'static) -> T {
        match self {
            Self::Here(learning) => task(learning),
            Self::There(worker) => {
                worker.help();
                let (sender, result) = bounded(1);
                let sent = worker.send(Message::Do(Box::new(move |learning| _ = sender.send(task(learning)))));
                match sent.and_then(|()| result.recv().ok()) {
                    Some(result) => result,
                    None => worker.panicked(),
                }
            }
        }
    }
}

impl Worker {
    /// Does this side's share of the updates under way.
    fn help(&mut self) {
        if let Some(helper) = &self.helper {
            helper.run(std::mem::take(&mut self.under_way));
        }
    }

    fn send(&self, message: Message) -> Option<()> {
        self.tasks.as_ref()?.send(message).ok()
    }

    /// Goes on with the panic that ended the thread.
    fn panicked(&mut self) -> ! {
        self.tasks = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            _ => panic!("the learner's thread is gone"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The learner's thread may be waiting for help: it must be able to finish its update, and ends with the tasks. Where
        // helping is what failed, it learns that nobody will.
        self.help();
        self.helper = None;
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told already, or is worth less than the error that is on its way.
            let _ = thread.join();
        }
    }
}
