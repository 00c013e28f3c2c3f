//! The group: rendezvous, collective operations, and which rank failed.

use crate::Config;
use crate::ffi::{self, Backend, Store};
use playfield_core::group::{self, GradientPrecision, Reduce};
use playfield_core::{Error, Result};
use std::any::Any;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Time between two questions to the store.
const POLL: Duration = Duration::from_millis(20);

/// The time in which the store answers, where its process runs.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time for which a rank waits, after a failure, for the reports of the others.
const ROLL_CALL: Duration = Duration::from_secs(3);

/// A group of several processes, which this one has joined.
#[derive(Debug)]
pub struct Group {
    rank: usize,
    world_size: usize,
    timeout: Duration,
    store: Arc<Store>,
    /// The address to listen on, and the network interface instead, where one is given.
    address: (String, Option<String>),
    /// `None` after a failure: its connections cannot be used any more.
    connections: Mutex<Option<Connections>>,
}

/// The connections to the other ranks.
#[derive(Debug)]
struct Connections {
    gloo: Backend,
    /// Between CUDA devices, where each rank has one of its own.
    nccl: Option<Backend>,
    /// Of sums in the background.
    background: Option<Background>,
}

/// A thread with connections of its own, so that its sums and the other operations need no common order.
#[derive(Debug)]
struct Background {
    values: Sender<(Vec<f32>, GradientPrecision)>,
    sums: Receiver<ffi::Result<Vec<f32>>>,
}

impl Background {
    fn new(mut gloo: Backend) -> Self {
        let ((values, jobs), (done, sums)) = (channel::<(Vec<f32>, _)>(), channel());
        thread::spawn(move || {
            for (mut values, precision) in jobs {
                let sum = sum_slice(&mut gloo, &mut values, precision).map(|()| values);
                if done.send(sum).is_err() {
                    break;
                }
            }
        });
        Self { values, sums }
    }
}

fn sum(backend: &mut Backend, values: &mut Tensor, precision: GradientPrecision) -> ffi::Result<()> {
    backend.sum(values, precision == GradientPrecision::Bf16)
}

fn sum_slice(backend: &mut Backend, values: &mut [f32], precision: GradientPrecision) -> ffi::Result<()> {
    // SAFETY: the tensor has the memory of `values`, which outlives it.
    let mut tensor = unsafe {
        Tensor::from_blob(values.as_mut_ptr().cast(), &[values.len() as i64], &[1], Kind::Float, Device::Cpu)
    };
    sum(backend, &mut tensor, precision)
}

impl Connections {
    /// The backend for a tensor on `device`.
    fn of(&mut self, device: Device) -> ffi::Result<&mut Backend> {
        match device {
            Device::Cpu => Ok(&mut self.gloo),
            _ => self.nccl.as_mut().ok_or_else(|| format!("no connections between devices like {device:?}")),
        }
    }
}

impl Group {
    /// Joins the group of the environment variables: see [`Config::from_env`]. `None` where there is one process.
    ///
    /// # Errors
    /// As [`Config::from_env`] and [`join`](Self::join).
    pub fn from_env() -> Result<Option<Self>> {
        Config::from_env()?.map(|config| Self::join(&config)).transpose()
    }

    /// Joins the group of `config`, and returns when every rank has.
    ///
    /// # Errors
    /// [`Error::Group`] where rank 0 cannot listen at its address, or a rank does not join within the timeout.
    pub fn join(config: &Config) -> Result<Self> {
        let owned = config.clone();
        // A server that accepts a connection and never answers must not block the process.
        let joined = within(config.timeout + ROLL_CALL, move || join(&owned));
        let joined = joined.unwrap_or_else(|| {
            let Config { master_address, master_port, .. } = config;
            Err(format!("no answer from rank 0 at {master_address}:{master_port} (MASTER_ADDR, MASTER_PORT)"))
        });
        joined.map_err(|message| Error::Group { rank: config.rank, operation: "joining the group", message })
    }

    fn connections(&self) -> MutexGuard<'_, Option<Connections>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a collective operation. After its failure all others fail, too.
    fn run<T>(&self, operation: &'static str, body: impl FnOnce(&mut Connections) -> ffi::Result<T>) -> Result<T> {
        let mut connections = self.connections();
        let failed = match connections.as_mut() {
            Some(connections) => match body(connections) {
                Ok(value) => return Ok(value),
                Err(message) => message,
            },
            None => "an earlier operation has failed".into(),
        };
        drop(connections);
        self.close();
        let message = match self.roll_call("") {
            absent if absent.is_empty() => format!("the connection is lost ({failed})"),
            absent => absent.join("; "),
        };
        Err(self.error(operation, message))
    }

    fn error(&self, operation: &'static str, message: String) -> Error {
        Error::Group { rank: self.rank, operation, message }
    }

    /// New connections to the other ranks, which `name` tells from others. All ranks connect at the same time.
    fn connect(&self, name: &str) -> ffi::Result<Backend> {
        let (address, interface) = &self.address;
        Backend::gloo(&self.store, name, self.rank, self.world_size, address, interface.as_deref(), self.timeout)
    }

    /// Closes the connections, which wakes the ranks that wait for this one. It may take as long as the timeout, so a thread does it.
    fn close(&self) {
        let closed = self.connections().take();
        thread::spawn(move || drop(closed));
    }

    /// Reports to the store that this rank has failed because of `reason`, or, where that is empty, has noticed a failure, and
    /// waits until all ranks have. Returns what is wrong with the ranks that have failed by themselves or do not report.
    fn roll_call(&self, reason: &str) -> Vec<String> {
        let deadline = ROLL_CALL.min(self.timeout);
        let (store, rank, world_size, reason) = (self.store.clone(), self.rank, self.world_size, reason.to_string());
        // A server that is stopped does not answer.
        let reports = within(deadline + STORE_TIMEOUT, move || -> ffi::Result<Vec<Option<String>>> {
            let started = Instant::now();
            if store.get(&failed(rank))?.is_none() {
                store.set(&failed(rank), reason.as_bytes())?;
            }
            loop {
                let report =
                    |rank| Ok(store.get(&failed(rank))?.map(|text| String::from_utf8_lossy(&text).into_owned()));
                let reports = (0..world_size).map(report).collect::<ffi::Result<Vec<_>>>()?;
                if reports.iter().all(Option::is_some) || started.elapsed() > deadline {
                    return Ok(reports);
                }
                thread::sleep(POLL);
            }
        });
        // Rank 0 serves the store.
        let Some(Ok(reports)) = reports else {
            return if rank == 0 { Vec::new() } else { vec!["rank 0 has ended or does not respond".into()] };
        };
        let describe = |(other, report): (usize, Option<String>)| match report {
            _ if other == rank => None,
            None => Some(format!("rank {other} has ended or does not respond")),
            Some(reason) if reason.is_empty() => None,
            Some(reason) => Some(format!("rank {other} has failed: {reason}")),
        };
        reports.into_iter().enumerate().filter_map(describe).collect()
    }
}

/// The key with the report of a rank that has failed.
fn failed(rank: usize) -> String {
    format!("failed/{rank}")
}

/// Runs `body` in a thread of its own; `None` where it takes longer than `limit`: the thread is abandoned.
fn within<T: Send + 'static>(limit: Duration, body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, result) = channel();
    thread::spawn(move || sender.send(body()));
    result.recv_timeout(limit).ok()
}

/// The address of `host`: the first of version 4, else the first.
fn resolve(host: &str, port: u16) -> ffi::Result<SocketAddr> {
    let found = (host, port).to_socket_addrs().map_err(|e| format!("MASTER_ADDR = '{host}' has no address: {e}"))?;
    let found: Vec<_> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("MASTER_ADDR = '{host}' has no address"))
}

/// The address of this machine from which packets to `master` are sent. No packet is sent here.
fn local_address(master: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if master.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(master)?;
    Ok(socket.local_addr()?.ip())
}

fn join(config: &Config) -> ffi::Result<Group> {
    let Config { rank, world_size, timeout, agent_attempt, .. } = *config;
    let master = resolve(&config.master_address, config.master_port)?;
    // Bound here, because TCPStore itself would listen on every address of the machine.
    let listener = match rank == 0 && agent_attempt.is_none() {
        true => Some(TcpListener::bind(master).map_err(|error| {
            format!("cannot listen on {master}: {error}; MASTER_ADDR must be an address of this machine, and MASTER_PORT unused")
        })?),
        false => None,
    };
    let prefix = agent_attempt.map_or("playfield".into(), |attempt| format!("playfield/attempt-{attempt}"));
    let store = Store::connect(&master.ip().to_string(), master.port(), listener, &prefix, timeout)
        .map_err(|error| format!("cannot connect to rank 0 at {master} (MASTER_ADDR, MASTER_PORT): {error}"))?;
    if store.count(&format!("joined/{rank}"))? > 1 {
        return Err(format!(
            "another process has joined as rank {rank} at {master}: give each process its own RANK, and each job its own MASTER_PORT"
        ));
    }
    store.set(&format!("world_size/{rank}"), world_size.to_string().as_bytes())?;
    let started = Instant::now();
    let mut missing: Vec<usize> = (0..world_size).collect();
    loop {
        for i in std::mem::take(&mut missing) {
            match store.get(&format!("world_size/{i}")).map_err(|_| "rank 0 has ended")? {
                None => missing.push(i),
                Some(other) if other != world_size.to_string().as_bytes() => {
                    let other = String::from_utf8_lossy(&other);
                    return Err(format!("rank {i} has WORLD_SIZE = {other}, and this one {world_size}"));
                }
                Some(_) => {}
            }
        }
        if missing.is_empty() {
            break;
        }
        if started.elapsed() > timeout {
            let ranks = missing.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!("rank {ranks} of {world_size} did not join within {} s", timeout.as_secs_f64()));
        }
        thread::sleep(POLL);
    }
    let local = local_address(master).map_err(|error| format!("no route to MASTER_ADDR {master}: {error}"))?;
    let (address, connections) = ((local.to_string(), config.interface.clone()), Mutex::new(None));
    let mut group = Group { rank, world_size, timeout, store: Arc::new(store), address, connections };
    let gloo = group.connect("gloo")?;
    group.connections = Mutex::new(Some(Connections { gloo, nccl: None, background: None }));
    Ok(group)
}

/// The number of bytes that follow, as it is sent before them.
fn length(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_le_bytes()
}

impl group::Group for Group {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<()> {
        self.run("all-reduce", |ranks| ranks.gloo.all_reduce(values, reduce == Reduce::Max))
    }

    fn sum(&self, values: &mut [f32], precision: GradientPrecision) -> Result<()> {
        self.run("all-reduce", |ranks| sum_slice(&mut ranks.gloo, values, precision))
    }

    fn start_sum(&self, values: Vec<f32>, precision: GradientPrecision) -> Result<()> {
        self.run("all-reduce in the background", |ranks| {
            let background = match ranks.background.take() {
                Some(background) => background,
                None => Background::new(self.connect("background")?),
            };
            // A thread that has ended says so when its sum is awaited.
            let _ = background.values.send((values, precision));
            ranks.background = Some(background);
            Ok(())
        })
    }

    fn finish_sum(&self) -> Result<Vec<f32>> {
        self.run("all-reduce in the background", |ranks| {
            let background = ranks.background.as_ref().expect("a sum was started");
            background.sums.recv().map_err(|_| "its thread has ended")?
        })
    }

    fn set_device(&self, cuda: Option<usize>) -> Result<()> {
        // Ranks with the same device, or without one, have no use for NCCL, which refuses them.
        let uuid = cuda.map_or(Ok(None), ffi::cuda_uuid);
        let uuid = uuid.map_err(|message| self.error("the name of the CUDA device", message))?;
        let mut all = self.gather(uuid.unwrap_or_default().into_bytes())?;
        let ranks = all.len();
        all.sort();
        all.dedup();
        let mut distinct = vec![u8::from(all.len() == ranks && all.iter().all(|uuid| !uuid.is_empty()))];
        self.broadcast(&mut distinct)?;
        if distinct == [1] {
            let device = cuda.expect("it has a name");
            self.run("connecting the CUDA devices", |ranks| {
                ranks.nccl = Some(Backend::nccl(&self.store, self.rank, self.world_size, device, self.timeout)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn sums_on_device(&self) -> bool {
        self.connections().as_ref().is_some_and(|ranks| ranks.nccl.is_some())
    }

    fn sum_on_device(&self, tensor: &mut dyn Any, precision: GradientPrecision) -> Result<()> {
        let tensor = tensor.downcast_mut::<Tensor>().expect("a tensor of tch");
        self.run("all-reduce", |ranks| sum(ranks.of(tensor.device())?, tensor, precision))
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        self.run("broadcast", |Connections { gloo, .. }| {
            let mut len = length(bytes);
            gloo.broadcast(&mut len)?;
            bytes.resize(u64::from_le_bytes(len) as usize, 0);
            gloo.broadcast(bytes)
        })
    }

    fn gather(&self, mut bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.run("gather", |Connections { gloo, .. }| {
            if self.rank > 0 {
                gloo.send(&mut length(&bytes), 0)?;
                gloo.send(&mut bytes, 0)?;
                return Ok(Vec::new());
            }
            let mut all = vec![bytes];
            for from in 1..self.world_size {
                let mut len = [0; 8];
                gloo.receive(&mut len, from)?;
                let mut bytes = vec![0; u64::from_le_bytes(len) as usize];
                gloo.receive(&mut bytes, from)?;
                all.push(bytes);
            }
            Ok(all)
        })
    }

    fn leave(&self, reason: &str) {
        // The others look for the reason as soon as the connections close.
        let (store, key, text) = (self.store.clone(), failed(self.rank), reason.as_bytes().to_vec());
        let _ = within(STORE_TIMEOUT, move || store.set(&key, &text));
        self.close();
        self.roll_call(reason);
    }
}
