//! How a process joins its group: the environment variables that `torchrun`, PyTorchJob and `playfield launch` set.

use playfield_core::{Error, Result};
use std::time::Duration;

/// Seconds that an operation waits for the other ranks, without [`TIMEOUT`].
const DEFAULT_TIMEOUT: f64 = 600.0;

/// The variable with the timeout in seconds.
pub const TIMEOUT: &str = "PLAYFIELD_GROUP_TIMEOUT";

/// What a process needs to join a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The number of this process, from 0 (`RANK`).
    pub rank: usize,
    /// The number of processes (`WORLD_SIZE`).
    pub world_size: usize,
    /// The host name or address of rank 0 (`MASTER_ADDR`).
    pub master_address: String,
    /// The port at which the ranks meet (`MASTER_PORT`).
    pub master_port: u16,
    /// The network interface to listen on (`GLOO_SOCKET_IFNAME`); `None`: the one with the route to rank 0.
    pub interface: Option<String>,
    /// The time that an operation waits for the other ranks (`PLAYFIELD_GROUP_TIMEOUT`, seconds).
    pub timeout: Duration,
    /// Where `torchrun` serves the store at the port (`TORCHELASTIC_USE_AGENT_STORE`), the number of the attempt
    /// (`TORCHELASTIC_RESTART_COUNT`).
    pub agent_attempt: Option<u64>,
}

impl Config {
    /// The configuration in this process's environment variables; `None` where `WORLD_SIZE` is not set, or 1.
    ///
    /// # Errors
    /// [`Error::Config`] naming the variable that is missing or wrong.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same from `variable`, which returns the value of a variable.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let whole = |name: &str, value: &str| {
            let number = value.trim().parse::<u64>();
            number.map_err(|_| {
                Error::config(format!("the environment variable {name} = '{value}' must be a whole number"))
            })
        };
        let Some(value) = variable("WORLD_SIZE") else { return Ok(None) };
        let world_size = match whole("WORLD_SIZE", &value)? {
            0 => return Err(Error::config("the environment variable WORLD_SIZE must be at least 1")),
            1 => return Ok(None),
            n => n as usize,
        };
        let required = |name: &str| {
            variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                Error::config(format!("the environment variable {name} is not set: WORLD_SIZE = {world_size} needs it"))
            })
        };
        let rank = whole("RANK", &required("RANK")?)? as usize;
        if rank >= world_size {
            return Err(Error::config(format!(
                "the environment variable RANK = {rank} must be less than WORLD_SIZE = {world_size}"
            )));
        }
        let (master_address, port) = (required("MASTER_ADDR")?, required("MASTER_PORT")?);
        let port_error =
            || Error::config(format!("the environment variable MASTER_PORT = '{port}' must be a port, 1 to 65535"));
        let master_port = port.trim().parse().ok().filter(|port| *port > 0).ok_or_else(port_error)?;
        let seconds = match variable(TIMEOUT) {
            None => DEFAULT_TIMEOUT,
            Some(value) => value.trim().parse().ok().filter(|s| (0.1..=1e6).contains(s)).ok_or_else(|| {
                Error::config(format!("the environment variable {TIMEOUT} = '{value}' must be 0.1 to 1e6 seconds"))
            })?,
        };
        let agent_attempt = match variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() {
            Some("True") => {
                let count = variable("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".into());
                Some(whole("TORCHELASTIC_RESTART_COUNT", &count)?)
            }
            _ => None,
        };
        Ok(Some(Self {
            rank,
            world_size,
            master_address,
            master_port,
            interface: variable("GLOO_SOCKET_IFNAME").filter(|name| !name.is_empty()),
            timeout: Duration::from_secs_f64(seconds),
            agent_attempt,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(changes: &[(&str, &str)]) -> Result<Option<Config>> {
        let defaults = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];
        let all: Vec<_> = changes.iter().chain(&defaults).copied().collect();
        Config::from_variables(|name| {
            all.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()).filter(|value| value != "unset")
        })
    }

    #[test]
    fn variables_are_read() {
        let expected = Config {
            rank: 1,
            world_size: 2,
            master_address: "10.0.0.1".into(),
            master_port: 29500,
            interface: None,
            timeout: Duration::from_secs(600),
            agent_attempt: None,
        };
        assert_eq!(parse(&[]).unwrap(), Some(expected.clone()));
        let changes = [
            (TIMEOUT, "2.5"),
            ("GLOO_SOCKET_IFNAME", "eth0"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "3"),
        ];
        let (timeout, interface) = (Duration::from_millis(2500), Some("eth0".into()));
        assert_eq!(parse(&changes).unwrap(), Some(Config { timeout, interface, agent_attempt: Some(3), ..expected }));
        for single in ["unset", "1"] {
            assert_eq!(parse(&[("WORLD_SIZE", single)]).unwrap(), None);
        }
    }

    #[test]
    fn errors_name_the_variable() {
        for (name, value, expected) in [
            ("WORLD_SIZE", "0", "WORLD_SIZE must be at least 1"),
            ("WORLD_SIZE", "two", "WORLD_SIZE = 'two' must be a whole number"),
            ("RANK", "unset", "RANK is not set: WORLD_SIZE = 2 needs it"),
            ("RANK", "2", "RANK = 2 must be less than WORLD_SIZE = 2"),
            ("MASTER_ADDR", "", "MASTER_ADDR is not set"),
            ("MASTER_PORT", "0", "MASTER_PORT = '0' must be a port"),
            ("MASTER_PORT", "70000", "MASTER_PORT = '70000' must be a port"),
            (TIMEOUT, "-1", "PLAYFIELD_GROUP_TIMEOUT = '-1' must be"),
        ] {
            let message = parse(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
