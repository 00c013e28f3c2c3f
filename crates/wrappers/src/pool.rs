//! A batch made of single environments, on threads.
//!
//! Each thread builds its environments and steps them, so they need not be `Send`. With one thread there is none: the
//! environments are stepped in the caller's, straight into its batch. That is the faster way for environments of less
//! than some microseconds a step (CartPole takes a tenth of one), as handing work to another thread and back costs more.
//!
//! When not to use it: for environments that hold a lock while they work (Python's), threads only take turns.

use crate::workers::{Buffer, Command, Group, Reply, Worker, copy_actions, copy_rows, differs};
use playfield_core::{Actions, Env, EnvSpec, Error, Image, Result, State, StepBatch, VecEnv};
use serde_json::json;
use std::sync::Arc;

/// Makes environment `i`, on the thread that will step it.
pub(crate) type Make = Arc<dyn Fn(usize) -> Result<Box<dyn Env>> + Send + Sync>;

/// A batch of environments, stepped by threads or, with one thread, by the caller.
///
/// A failed or panicked environment is an [`Error::Env`] that names it; the pool has come to its end with that, and every
/// later call says so. Dropping a pool waits for its threads.
pub struct Pool {
    spec: EnvSpec,
    seeds: Vec<u64>,
    crew: Crew,
    phase: Phase,
}

/// Who steps the environments.
enum Crew {
    /// The caller, in `recv`; the actions of `send` wait here.
    Caller(Group, Actions),
    /// Threads.
    Threads(Vec<Worker>),
}

/// What may come next.
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
    /// `seeds.len()` environments on `threads` threads (0 or 1: on none), environment `i` from `make(i)` with
    /// `seeds[i]`.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no seed; else what `make` returns, or [`Error::Env`] where it panics or the
    /// environments differ from each other.
    pub fn new<F>(seeds: &[u64], threads: usize, make: F) -> Result<Self>
    where
        F: Fn(usize) -> Result<Box<dyn Env>> + Send + Sync + 'static,
    {
        if seeds.is_empty() {
            return Err(Error::config("a pool needs at least one environment"));
        }
        let make: Make = Arc::new(make);
        let (spec, crew) = if threads.min(seeds.len()) <= 1 {
            let group = Group::build(&make, 0, seeds.len())?;
            let spec = group.spec().clone();
            let actions = Actions::zeros(&spec.actions, seeds.len());
            (spec, Crew::Caller(group, actions))
        } else {
            let workers = start(&make, seeds, threads)?;
            (workers.0, Crew::Threads(workers.1))
        };
        Ok(Self { spec, seeds: seeds.to_vec(), crew, phase: Phase::New })
    }

    /// Refuses a call that is out of turn, or comes after a failure.
    fn expect(&self, allowed: impl Fn(&Phase) -> bool, otherwise: &str) -> Result<()> {
        match &self.phase {
            Phase::Failed(why) => Err(Error::env(&self.spec.id, format!("no step is possible after a failure: {why}"))),
            phase if allowed(phase) => Ok(()),
            _ => Err(Error::env(&self.spec.id, otherwise)),
        }
    }

    /// Remembers a failure, after which nothing else can be expected of the environments.
    fn settle<T>(&mut self, result: Result<T>, next: Phase) -> Result<T> {
        self.phase = match &result {
            Ok(_) => next,
            Err(e) => Phase::Failed(e.to_string()),
        };
        result
    }
}

/// Starts the threads, shares the environments out among them and waits until all are built.
fn start(make: &Make, seeds: &[u64], threads: usize) -> Result<(EnvSpec, Vec<Worker>)> {
    let threads = threads.min(seeds.len());
    let border = |t: usize| t * seeds.len() / threads;
    let mut workers = (0..threads)
        .map(|t| Worker::start(make.clone(), border(t), seeds[border(t)..border(t + 1)].to_vec()))
        .collect::<Result<Vec<_>>>()?;
    let mut spec: Option<EnvSpec> = None;
    for worker in &mut workers {
        let Reply::Built(theirs) = worker.reply()? else { unreachable!("the first reply is of building") };
        worker.buffer = Some(Box::new(Buffer {
            actions: Actions::zeros(&theirs.actions, worker.n),
            batch: StepBatch::new(&theirs, worker.n),
        }));
        match &spec {
            Some(spec) if *spec != theirs => return Err(differs(spec, worker.first, 0)),
            _ => spec = Some(theirs),
        }
    }
    Ok((spec.expect("at least one worker"), workers))
}

/// Waits for the outcome of every worker, the failed ones too, and copies the rows into `batch`.
fn collect(workers: &mut [Worker], batch: &mut StepBatch, frame_len: usize) -> Result<()> {
    let mut first_error = Ok(());
    for worker in workers {
        match worker.reply() {
            Ok(Reply::Outcome(buffer)) => {
                copy_rows(&buffer.batch, worker.first, batch, frame_len);
                worker.buffer = Some(buffer);
            }
            Ok(_) => unreachable!("a step is answered by its outcome"),
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
        self.expect(|p| !matches!(p, Phase::Sent), "`reset` while a step is under way: call `recv` first")?;
        let result = match &mut self.crew {
            Crew::Caller(group, _) => group.reset(&self.seeds, batch),
            Crew::Threads(workers) => {
                for worker in workers.iter_mut() {
                    let buffer = worker.buffer.take().expect("no step is under way");
                    worker.send(Command::Reset(buffer));
                }
                collect(workers, batch, self.spec.frame_len())
            }
        };
        self.settle(result, Phase::Ready)
    }

    fn send(&mut self, actions: &Actions) -> Result<()> {
        self.expect(|p| matches!(p, Phase::Ready), "`send` must follow `reset` or `recv`")?;
        actions.check(&self.spec.actions, self.seeds.len())?;
        match &mut self.crew {
            Crew::Caller(_, kept) => copy_actions(actions, 0, kept),
            Crew::Threads(workers) => {
                for worker in workers {
                    let mut buffer = worker.buffer.take().expect("no step is under way");
                    copy_actions(actions, worker.first, &mut buffer.actions);
                    worker.send(Command::Step(buffer));
                }
            }
        }
        self.phase = Phase::Sent;
        Ok(())
    }

    fn recv(&mut self, batch: &mut StepBatch) -> Result<()> {
        self.expect(|p| matches!(p, Phase::Sent), "`recv` must follow `send`")?;
        let result = match &mut self.crew {
            Crew::Caller(group, actions) => group.step(actions, batch),
            Crew::Threads(workers) => collect(workers, batch, self.spec.frame_len()),
        };
        self.settle(result, Phase::Ready)
    }

    fn save_state(&mut self) -> Result<Option<State>> {
        self.expect(|p| matches!(p, Phase::Ready), "a state can be saved between `recv` and `send` alone")?;
        let result = match &mut self.crew {
            Crew::Caller(group, _) => group.save(),
            Crew::Threads(workers) => {
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
        Ok(self.settle(result, Phase::Ready)?.map(|envs| json!({ "envs": envs })))
    }

    /// The pictures of a pool without threads: one that is made to be looked at.
    fn render(&mut self) -> Result<Option<Image>> {
        match &mut self.crew {
            Crew::Caller(group, _) => group.render(),
            Crew::Threads(_) => Ok(None),
        }
    }

    fn load_state(&mut self, state: &State) -> Result<()> {
        self.expect(|p| !matches!(p, Phase::Sent), "a state cannot be loaded while a step is under way")?;
        let n = self.seeds.len();
        let states = state.get("envs").and_then(State::as_array).filter(|states| states.len() == n);
        let wrong = || Error::env(&self.spec.id, format!("the saved state is not one of a pool of {n} environments"));
        let states = states.ok_or_else(wrong)?;
        let result = match &mut self.crew {
            Crew::Caller(group, _) => group.load(states),
            Crew::Threads(workers) => {
                for w in workers.iter() {
                    w.send(Command::Load(states[w.first..w.first + w.n].to_vec()));
                }
                // Every answer is fetched, whatever the first of them says.
                let replies: Vec<_> = workers.iter().map(Worker::reply).collect();
                replies.into_iter().try_for_each(|reply| reply.map(drop))
            }
        };
        self.settle(result, Phase::Ready)
    }
}
