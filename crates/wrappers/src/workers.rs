//! The environments of one thread ([`Group`]), and the thread ([`Worker`]).
//!
//! ```text
//! caller   send: fill the buffer ──►(bounded channel)──► worker   steps its rows into the buffer
//!          recv: copy the rows   ◄──(bounded channel)◄──
//! ```
//!
//! A buffer of actions and results is sent with the command and returned with the reply, so a step allocates nothing, shares
//! nothing and takes no lock. An error or a panic in a worker is returned as an error. A worker that ends closes its channel,
//! so the caller never blocks on it.

use crate::pool::Make;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use playfield_core::{Actions, Env, EnvSpec, Error, Image, Result, State, StepBatch};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Environments `first..first + n` of a pool, on the thread that built them.
pub(crate) struct Group {
    first: usize,
    spec: EnvSpec,
    envs: Vec<Box<dyn Env>>,
    deadline: Option<Arc<Deadline>>,
    /// Whether the last frame of each episode of the first environment is kept.
    keeps_final_frames: bool,
    final_frame: Option<Image>,
}

impl Group {
    /// Builds `n` environments, which must have the same spaces.
    pub(crate) fn build(make: &Make, first: usize, n: usize) -> Result<Self> {
        let mut envs: Vec<Box<dyn Env>> = Vec::with_capacity(n);
        for i in first..first + n {
            let env = guard("environment", || make(i)).map_err(|e| at("environment", i, e, true))?;
            match envs.first().map(|env| env.spec()) {
                Some(spec) if spec != env.spec() => return Err(differs(spec, i, first)),
                _ => envs.push(env),
            }
        }
        let spec = envs[0].spec().clone();
        Ok(Self { first, spec, envs, deadline: None, keeps_final_frames: false, final_frame: None })
    }

    /// The spaces of the environments.
    pub(crate) fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    /// Calls `work` with each environment and its row. An error or panic is returned with the environment's index.
    fn each(&mut self, mut work: impl FnMut(usize, &mut dyn Env) -> Result<()>) -> Result<()> {
        let (spec, envs, deadline, mut row) = (&self.spec, &mut self.envs, self.deadline.as_deref(), 0);
        let done = guard(&spec.id, || {
            for env in envs.iter_mut() {
                if let Some(deadline) = deadline {
                    deadline.begin(row);
                }
                work(row, env.as_mut())?;
                row += 1;
            }
            Ok(())
        });
        if let Some(deadline) = deadline {
            deadline.end();
        }
        done.map_err(|e| at(&spec.id, self.first + row, e, false))
    }

    /// Starts an episode in each environment, from its seed.
    pub(crate) fn reset(&mut self, seeds: &[u64], batch: &mut StepBatch) -> Result<()> {
        batch.clear();
        self.each(|row, env| {
            env.reset(Some(seeds[row]), batch.obs_row_mut(row))?;
            write_mask(env, batch.mask_row_mut(row));
            Ok(())
        })
    }

    /// Steps each environment. Where an episode ends, its last observation is kept and the environment is reset.
    pub(crate) fn step(&mut self, actions: &Actions, batch: &mut StepBatch) -> Result<()> {
        let (len, keeps) = (self.spec.frame_len(), self.keeps_final_frames);
        let mut final_frame = None;
        self.each(|row, env| {
            let step = env.step(actions.row(row), batch.obs_row_mut(row))?;
            if step.done() {
                let StepBatch { obs, final_obs, .. } = batch;
                final_obs.slice_mut(row * len, len).copy_from(obs.slice(row * len, len));
                write_mask(env, batch.final_mask_row_mut(row));
                if keeps && row == 0 {
                    final_frame = env.render()?;
                }
                env.reset(None, batch.obs_row_mut(row))?;
            }
            write_mask(env, batch.mask_row_mut(row));
            batch.set(row, step);
            Ok(())
        })?;
        self.final_frame = final_frame;
        Ok(())
    }

    /// Keeps the last frame of each episode of the first environment from now on.
    pub(crate) fn keep_final_frames(&mut self) {
        self.keeps_final_frames = true;
    }

    /// The frame at the end of the first environment's episode, if the last step ended it.
    pub(crate) fn final_frame(&mut self) -> Option<Image> {
        self.final_frame.take()
    }

    /// Renders the first environment.
    pub(crate) fn render(&mut self) -> Result<Option<Image>> {
        guard(&self.spec.id, || self.envs[0].render())
    }

    /// The state of each environment, if all have one.
    pub(crate) fn save(&mut self) -> Result<Option<Vec<State>>> {
        let mut states = Some(Vec::with_capacity(self.envs.len()));
        self.each(|_, env| {
            states = states.take().zip(env.save_state()).map(|(mut states, state)| {
                states.push(state);
                states
            });
            Ok(())
        })?;
        Ok(states)
    }

    /// Continues from the states of [`save`](Self::save).
    pub(crate) fn load(&mut self, states: &[State]) -> Result<()> {
        self.each(|row, env| env.load_state(&states[row]))
    }
}

/// Writes the action mask of `env`, if it has one.
fn write_mask(env: &dyn Env, mask: &mut [bool]) {
    if !mask.is_empty() {
        mask.fill(true);
        env.action_mask(mask);
    }
}

/// The time limit of one environment's step or reset: written by the worker, read by the caller that waits for it.
pub(crate) struct Deadline {
    limit: Duration,
    epoch: Instant,
    /// The row whose call is in progress.
    row: AtomicUsize,
    /// When that call began, in nanoseconds since `epoch`; 0: no call is in progress.
    since: AtomicU64,
}

impl Deadline {
    fn new(limit: Duration) -> Self {
        Self { limit, epoch: Instant::now(), row: AtomicUsize::new(0), since: AtomicU64::new(0) }
    }

    fn begin(&self, row: usize) {
        self.row.store(row, Ordering::Relaxed);
        self.since.store((self.epoch.elapsed().as_nanos() as u64).max(1), Ordering::Release);
    }

    fn end(&self) {
        self.since.store(0, Ordering::Release);
    }

    /// The time until the limit of the call in progress; `Err(row)` where it is exceeded.
    fn left(&self) -> std::result::Result<Duration, usize> {
        match self.since.load(Ordering::Acquire) {
            0 => Ok(self.limit),
            since => {
                let elapsed = self.epoch.elapsed().saturating_sub(Duration::from_nanos(since));
                let left = self.limit.checked_sub(elapsed).filter(|left| !left.is_zero());
                left.ok_or_else(|| self.row.load(Ordering::Relaxed))
            }
        }
    }
}

/// The actions for a group and the results of its step.
pub(crate) struct Buffer {
    pub(crate) actions: Actions,
    pub(crate) batch: StepBatch,
}

pub(crate) enum Command {
    Reset(Box<Buffer>),
    Step(Box<Buffer>),
    Save,
    Load(Vec<State>),
}

pub(crate) enum Reply {
    Built(EnvSpec),
    Stepped(Box<Buffer>),
    Saved(Option<Vec<State>>),
    Loaded,
}

/// A thread that steps environments `first..first + seeds.len()`.
pub(crate) struct Worker {
    pub(crate) first: usize,
    pub(crate) n: usize,
    commands: Option<Sender<Command>>,
    replies: Receiver<Result<Reply>>,
    thread: Option<JoinHandle<()>>,
    deadline: Option<Arc<Deadline>>,
    /// The environments' id, once they are built.
    pub(crate) id: String,
    /// `None` during a step, when the worker has it.
    pub(crate) buffer: Option<Box<Buffer>>,
}

/// How long a pool with a time limit waits for its threads to close their environments.
const TIME_TO_CLOSE: Duration = Duration::from_secs(10);

impl Worker {
    /// Starts the thread, which builds its environments at once. Its first reply reports the build.
    pub(crate) fn start(make: Make, first: usize, seeds: Vec<u64>, limit: Option<Duration>) -> Result<Self> {
        let n = seeds.len();
        let deadline = limit.map(|limit| Arc::new(Deadline::new(limit)));
        let theirs = deadline.clone();
        let (commands, todo) = bounded(1);
        let (done, replies) = bounded(1);
        let thread = std::thread::Builder::new()
            .name(format!("environments {first} to {}", first + n - 1))
            .spawn(move || work(&make, first, &seeds, theirs, &todo, &done))
            .map_err(Error::other)?;
        Ok(Self {
            first,
            n,
            commands: Some(commands),
            replies,
            thread: Some(thread),
            deadline,
            id: "environment".into(),
            buffer: None,
        })
    }

    /// Sends a command. That the worker has ended is an error of [`reply`](Self::reply).
    pub(crate) fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }

    /// Waits for the reply to the last command. An environment over the time limit is an error.
    pub(crate) fn reply(&self) -> Result<Reply> {
        let gone = || Error::env(&self.id, format!("the thread of environment {} has ended", self.first));
        let Some(deadline) = &self.deadline else { return self.replies.recv().map_err(|_| gone())? };
        loop {
            let left = deadline.left().map_err(|row| self.over_limit(row, deadline.limit))?;
            match self.replies.recv_timeout(left) {
                Ok(reply) => return reply,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn over_limit(&self, row: usize, limit: Duration) -> Error {
        let (i, seconds) = (self.first + row, limit.as_secs_f64());
        let message =
            format!("environment {i}: its step or reset took longer than {seconds} s (env.step_timeout_seconds)");
        Error::env(&self.id, message)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(deadline) = &self.deadline {
            // The channel is disconnected when the thread ends. A thread that hangs is abandoned: it ends with the process.
            let until = Instant::now() + TIME_TO_CLOSE;
            while deadline.left().is_ok() && self.replies.recv_deadline(until).is_ok() {}
            if deadline.left().is_err() || Instant::now() >= until {
                return;
            }
        }
        if let Some(thread) = self.thread.take() {
            // A panic was already returned as a reply.
            let _ = thread.join();
        }
    }
}

/// The thread's main function: builds the environments, then executes commands until the channel closes or one fails.
fn work(
    make: &Make,
    first: usize,
    seeds: &[u64],
    deadline: Option<Arc<Deadline>>,
    todo: &Receiver<Command>,
    done: &Sender<Result<Reply>>,
) {
    let mut group = match Group::build(make, first, seeds.len()) {
        Ok(group) => Group { deadline, ..group },
        Err(error) => return drop(done.send(Err(error))),
    };
    let mut reply = Ok(Reply::Built(group.spec.clone()));
    loop {
        let failed = reply.is_err();
        if done.send(reply).is_err() || failed {
            return;
        }
        let Ok(command) = todo.recv() else { return };
        reply = match command {
            Command::Reset(mut buffer) => group.reset(seeds, &mut buffer.batch).map(|()| Reply::Stepped(buffer)),
            Command::Step(mut buffer) => {
                let Buffer { actions, batch } = &mut *buffer;
                group.step(actions, batch).map(|()| Reply::Stepped(buffer))
            }
            Command::Save => group.save().map(Reply::Saved),
            Command::Load(states) => group.load(&states).map(|()| Reply::Loaded),
        };
    }
}

/// The error for an environment `i` whose spaces differ from those of environment `other`.
pub(crate) fn differs(spec: &EnvSpec, i: usize, other: usize) -> Error {
    Error::env(&spec.id, format!("environment {i} has other spaces than environment {other}"))
}

/// Runs `work` and turns a panic into an error.
pub(crate) fn guard<T>(id: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::env(id, format!("panicked: {}", text.as_deref().unwrap_or("without a message"))))
    })
}

/// Adds the environment's index to an error.
fn at(id: &str, i: usize, error: Error, building: bool) -> Error {
    match error {
        Error::Env { id, message, detail } => Error::Env { id, message: format!("environment {i}: {message}"), detail },
        // An invalid setting is the same in every environment.
        Error::Config(_) if building => error,
        other => Error::env(id, format!("environment {i}: {other}")),
    }
}

/// Copies the rows of one worker into the batch of all.
pub(crate) fn copy_rows(from: &StepBatch, first: usize, to: &mut StepBatch, frame_len: usize) {
    let n = from.num_envs();
    to.obs.slice_mut(first * frame_len, n * frame_len).copy_from(from.obs.as_ref());
    to.reward[first..first + n].copy_from_slice(&from.reward);
    to.terminated[first..first + n].copy_from_slice(&from.terminated);
    to.truncated[first..first + n].copy_from_slice(&from.truncated);
    to.life_lost[first..first + n].copy_from_slice(&from.life_lost);
    to.episode[first..first + n].fill(None);
    to.forced[first..first + n].fill(None);
    to.ignored[first..first + n].fill(false);
    for i in (0..n).filter(|&i| from.done(i)) {
        to.final_obs_row_mut(first + i).copy_from(from.final_obs_row(i));
        to.final_mask_row_mut(first + i).copy_from_slice(from.final_mask_row(i));
    }
    for i in 0..n {
        to.mask_row_mut(first + i).copy_from_slice(from.mask_row(i));
    }
}
