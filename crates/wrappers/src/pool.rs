//! A batch of single environments, stepped by threads.
//!
//! Each thread builds its environments and steps them, so they need not be `Send`. With one thread the caller steps the
//! environments itself, directly into its batch. That is faster for environments with steps of a few microseconds or less
//! (CartPole takes a tenth of one), as the hand-over to another thread and back costs more.
//!
//! When not to use it: environments that hold a lock while they step (Python's GIL) run one after the other on any number of
//! threads.

use crate::workers::{Buffer, Command, Group, Reply, Worker, copy_rows, differs};
use playfield_core::{Actions, Env, EnvSpec, Error, Image, Result, State, StepBatch, VecEnv};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Creates environment `i`, on the thread that steps it.
pub(crate) type Make = Arc<dyn Fn(usize) -> Result<Box<dyn Env>> + Send + Sync>;

/// A batch of environments, stepped by threads or, with one thread, by the caller.
///
/// An environment that fails or panics is an [`Error::Env`] that names it. After that every call to the pool is an error.
/// Dropping a pool joins its threads.
pub struct Pool {
    spec: EnvSpec,
    seeds: Vec<u64>,
    backend: Backend,
    phase: Phase,
}

/// Where the environments are stepped.
enum Backend {
    /// In the caller's thread, in `recv`, with the actions of the last `send`.
    Caller(Box<Group>, Actions),
    /// In worker threads.
    Threads(Vec<Worker>),
}

/// The calls that are allowed next.
enum Phase {
    /// `reset` or `load_state`.
    New,
    /// `send`.
    Ready,
    /// `recv`.
    Sent,
    /// Nothing, for the reason given.
    Failed(String),
}

impl Pool {
    /// Creates `seeds.len()` environments on `threads` threads (0 or 1: in the caller's), environment `i` from `make(i)` with
    /// `seeds[i]`.
    ///
    /// # Errors
    /// [`Error::Config`] without a seed; else what `make` returns, or [`Error::Env`] where it panics or the
    /// environments differ from each other.
    pub fn new<F>(seeds: &[u64], threads: usize, make: F) -> Result<Self>
    where
        F: Fn(usize) -> Result<Box<dyn Env>> + Send + Sync + 'static,
    {
        Self::with_limit(seeds, threads, None, make)
    }

    /// The same with a `limit` on the duration of an environment's step (with the reset after the end of an episode) or reset. The
    /// environments are never stepped in the caller's thread then. A thread whose environment exceeds the limit is abandoned.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_limit<F>(seeds: &[u64], threads: usize, limit: Option<Duration>, make: F) -> Result<Self>
    where
        F: Fn(usize) -> Result<Box<dyn Env>> + Send + Sync + 'static,
    {
        if seeds.is_empty() {
            return Err(Error::config("a pool of environments needs at least one"));
        }
        let make: Make = Arc::new(make);
        let (spec, backend) = if threads.min(seeds.len()) <= 1 && limit.is_none() {
            let group = Group::build(&make, 0, seeds.len())?;
            let spec = group.spec().clone();
            let actions = Actions::zeros(&spec.actions, seeds.len());
            (spec, Backend::Caller(Box::new(group), actions))
        } else {
            let workers = start(&make, seeds, threads, limit)?;
            (workers.0, Backend::Threads(workers.1))
        };
        Ok(Self { spec, seeds: seeds.to_vec(), backend, phase: Phase::New })
    }

    /// Keeps the last frame of each episode of the first environment from now on ([`VecEnv::final_frame`]), in a pool without threads.
    #[must_use]
    pub(crate) fn keep_final_frames(mut self) -> Self {
        if let Backend::Caller(group, _) = &mut self.backend {
            group.keep_final_frames();
        }
        self
    }

    /// Refuses a call in the wrong phase, or after a failure.
    fn expect(&self, allowed: impl Fn(&Phase) -> bool, otherwise: &str) -> Result<()> {
        match &self.phase {
            Phase::Failed(why) => Err(Error::env(&self.spec.id, format!("no step is possible after a failure: {why}"))),
            phase if allowed(phase) => Ok(()),
            _ => Err(Error::env(&self.spec.id, otherwise)),
        }
    }

    /// Sets the next phase, or keeps the failure for later calls.
    fn finish<T>(&mut self, result: Result<T>, next: Phase) -> Result<T> {
        self.phase = match &result {
            Ok(_) => next,
            Err(e) => Phase::Failed(e.to_string()),
        };
        result
    }
}

/// Starts the threads, splits the environments among them and waits until all are built.
fn start(make: &Make, seeds: &[u64], threads: usize, limit: Option<Duration>) -> Result<(EnvSpec, Vec<Worker>)> {
    let threads = threads.clamp(1, seeds.len());
    let bound = |t: usize| t * seeds.len() / threads;
    let mut workers = (0..threads)
        .map(|t| Worker::start(make.clone(), bound(t), seeds[bound(t)..bound(t + 1)].to_vec(), limit))
        .collect::<Result<Vec<_>>>()?;
    let mut spec: Option<EnvSpec> = None;
    for worker in &mut workers {
        let Reply::Built(theirs) = worker.reply()? else { unreachable!("the first reply reports the build") };
        worker.buffer = Some(Box::new(Buffer {
            actions: Actions::zeros(&theirs.actions, worker.n),
            batch: StepBatch::new(&theirs, worker.n),
        }));
        worker.id.clone_from(&theirs.id);
        match &spec {
            Some(spec) if *spec != theirs => return Err(differs(spec, worker.first, 0)),
            _ => spec = Some(theirs),
        }
    }
    Ok((spec.expect("at least one worker"), workers))
}

/// Waits for the results of every worker, including failed ones, and copies the rows into `batch`.
fn collect(workers: &mut [Worker], batch: &mut StepBatch, frame_len: usize) -> Result<()> {
    let mut first_error = Ok(());
    for worker in workers {
        match worker.reply() {
            Ok(Reply::Stepped(buffer)) => {
                copy_rows(&buffer.batch, worker.first, batch, frame_len);
                worker.buffer = Some(buffer);
            }
            Ok(_) => unreachable!("the reply to a step is its result"),
            Err(e) => first_error = first_error.and(Err(e)),
        }
    }
    first_error
}

impl VecEnv for Pool {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.seeds.len()
    }

    fn reset(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.expect(|p| !matches!(p, Phase::Sent), "`reset` during a step: call `recv` first")?;
        let result = match &mut self.backend {
            Backend::Caller(group, _) => group.reset(&self.seeds, batch),
            Backend::Threads(workers) => {
                for worker in workers.iter_mut() {
                    let buffer = worker.buffer.take().expect("no step is in progress");
                    worker.send(Command::Reset(buffer));
                }
                collect(workers, batch, self.spec.frame_len())
            }
        };
        self.finish(result, Phase::Ready)
    }

    fn send(&mut self, actions: &Actions) -> Result<()> {
        self.expect(|p| matches!(p, Phase::Ready), "`send` must follow `reset` or `recv`")?;
        actions.check(&self.spec.actions, self.seeds.len())?;
        match &mut self.backend {
            Backend::Caller(_, sent) => sent.clone_from(actions),
            Backend::Threads(workers) => {
                for worker in workers {
                    let mut buffer = worker.buffer.take().expect("no step is in progress");
                    buffer.actions.copy_rows(0, actions, worker.first..worker.first + worker.n);
                    worker.send(Command::Step(buffer));
                }
            }
        }
        self.phase = Phase::Sent;
        Ok(())
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.expect(|p| matches!(p, Phase::Sent), "`recv` must follow `send`")?;
        let result = match &mut self.backend {
            Backend::Caller(group, actions) => group.step(actions, batch),
            Backend::Threads(workers) => collect(workers, batch, self.spec.frame_len()),
        };
        self.finish(result, Phase::Ready)
    }

    fn steps_in_background(&self) -> bool {
        matches!(self.backend, Backend::Threads(_))
    }

    fn save_state(&mut self) -> Result<Option<State>> {
        self.expect(|p| matches!(p, Phase::Ready), "a state can only be saved between `recv` and `send`")?;
        let result = match &mut self.backend {
            Backend::Caller(group, _) => group.save(),
            Backend::Threads(workers) => {
                workers.iter().for_each(|w| w.send(Command::Save));
                let mut all = Ok(Some(Vec::new()));
                for worker in workers {
                    all = match (all, worker.reply()) {
                        (Ok(Some(mut all)), Ok(Reply::Saved(Some(part)))) => {
                            all.extend(part);
                            Ok(Some(all))
                        }
                        (Ok(_), Ok(_)) => Ok(None),
                        (Err(e), _) | (_, Err(e)) => Err(e),
                    };
                }
                all
            }
        };
        Ok(self.finish(result, Phase::Ready)?.map(|envs| json!({ "envs": envs })))
    }

    /// Renders in a pool without threads only.
    fn render(&mut self) -> Result<Option<Image>> {
        match &mut self.backend {
            Backend::Caller(group, _) => group.render(),
            Backend::Threads(_) => Ok(None),
        }
    }

    fn final_frame(&mut self) -> Result<Option<Image>> {
        match &mut self.backend {
            Backend::Caller(group, _) => Ok(group.final_frame()),
            Backend::Threads(_) => Ok(None),
        }
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.expect(|p| !matches!(p, Phase::Sent), "a state cannot be loaded during a step")?;
        let n = self.seeds.len();
        let states = state.get("envs").and_then(State::as_array).filter(|states| states.len() == n);
        let wrong = || Error::env(&self.spec.id, format!("the saved state is not one of a pool of {n} environments"));
        let states = states.ok_or_else(wrong)?;
        let result = match &mut self.backend {
            Backend::Caller(group, _) => group.load(states),
            Backend::Threads(workers) => {
                for w in workers.iter() {
                    w.send(Command::Load(states[w.first..w.first + w.n].to_vec()));
                }
                // Every reply is received, even after an error.
                let replies: Vec<_> = workers.iter().map(Worker::reply).collect();
                replies.into_iter().try_for_each(|reply| reply.map(drop))
            }
        };
        self.finish(result, Phase::Ready)
    }
}
