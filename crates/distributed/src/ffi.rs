//! `shim.cpp` in Rust: the declarations, and owners of its two kinds of objects.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::net::TcpListener;
use std::os::fd::IntoRawFd as _;
use std::ptr::null_mut;
use std::time::Duration;
use tch::{Kind, Tensor};

/// The message of a failed call.
pub type Result<T> = std::result::Result<T, String>;

#[repr(C)]
struct RawStore([u8; 0]);

#[repr(C)]
struct RawBackend([u8; 0]);

unsafe extern "C" {
    fn playfield_free(message: *mut c_char);
    fn playfield_store_connect(
        host: *const c_char,
        port: u16,
        listener: c_int,
        prefix: *const c_char,
        timeout: i64,
        store: *mut *mut RawStore,
    ) -> *mut c_char;
    fn playfield_store_free(store: *mut RawStore);
    fn playfield_store_set(store: *mut RawStore, key: *const c_char, value: *const u8, len: usize) -> *mut c_char;
    fn playfield_store_count(store: *mut RawStore, key: *const c_char, count: *mut i64) -> *mut c_char;
    fn playfield_store_get(
        store: *mut RawStore,
        key: *const c_char,
        value: *mut *mut c_char,
        len: *mut usize,
    ) -> *mut c_char;
    fn playfield_gloo_join(
        store: *mut RawStore,
        name: *const c_char,
        rank: c_int,
        world_size: c_int,
        address: *const c_char,
        interface: *const c_char,
        timeout: i64,
        gloo: *mut *mut RawBackend,
    ) -> *mut c_char;
    fn playfield_backend_free(backend: *mut RawBackend);
    fn playfield_all_reduce(backend: *mut RawBackend, data: *mut f64, len: i64, maximum: bool) -> *mut c_char;
    fn playfield_sum(backend: *mut RawBackend, values: *mut c_void, bf16: bool) -> *mut c_char;
    fn playfield_broadcast(backend: *mut RawBackend, data: *mut u8, len: i64) -> *mut c_char;
    fn playfield_send(backend: *mut RawBackend, data: *mut u8, len: i64, to: c_int) -> *mut c_char;
    fn playfield_receive(backend: *mut RawBackend, data: *mut u8, len: i64, from: c_int) -> *mut c_char;
}

#[cfg(nccl)]
unsafe extern "C" {
    fn playfield_cuda_uuid(device: c_int, uuid: *mut *mut c_char) -> *mut c_char;
    fn playfield_nccl_join(
        store: *mut RawStore,
        rank: c_int,
        world_size: c_int,
        device: c_int,
        timeout: i64,
        nccl: *mut *mut RawBackend,
    ) -> *mut c_char;
}

/// The result of a call that returned `message`, which is freed.
fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns a string of its own, which is freed once, here.
    unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        playfield_free(message);
        Err(text)
    }
}

fn string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| format!("'{text}' contains a NUL character"))
}

fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
}

/// A connection to the key-value server of the rendezvous.
#[derive(Debug)]
pub struct Store(*mut RawStore);

// SAFETY: c10d's stores lock a mutex in every operation.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects to `host`:`port`. With `listener`, which is bound to this address, this process serves the store there.
    pub fn connect(
        host: &str,
        port: u16,
        listener: Option<TcpListener>,
        prefix: &str,
        timeout: Duration,
    ) -> Result<Self> {
        let (host, prefix) = (string(host)?, string(prefix)?);
        // The server owns the socket from now on.
        let listener = listener.map_or(-1, TcpListener::into_raw_fd);
        let (timeout, mut store) = (milliseconds(timeout), null_mut());
        // SAFETY: the strings live during the call.
        check(unsafe { playfield_store_connect(host.as_ptr(), port, listener, prefix.as_ptr(), timeout, &mut store) })?;
        Ok(Self(store))
    }

    /// Sets `key` to `value`.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = string(key)?;
        // SAFETY: key and value live during the call.
        check(unsafe { playfield_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Adds 1 to the counter `key` and returns its new value.
    pub fn count(&self, key: &str) -> Result<i64> {
        let (key, mut count) = (string(key)?, 0);
        // SAFETY: the key lives during the call.
        check(unsafe { playfield_store_count(self.0, key.as_ptr(), &mut count) })?;
        Ok(count)
    }

    /// The value of `key`, or `None` where it does not exist.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (key, mut value, mut len) = (string(key)?, null_mut(), 0);
        // SAFETY: the key lives during the call. `value` holds `len` bytes, or is null, and is freed once.
        unsafe {
            check(playfield_store_get(self.0, key.as_ptr(), &mut value, &mut len))?;
            let bytes = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), len).to_vec());
            playfield_free(value);
            Ok(bytes)
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: this value is the only owner.
        unsafe { playfield_store_free(self.0) }
    }
}

/// The UUID of a CUDA device, 32 hexadecimal digits; `None` if this build has no NCCL.
#[cfg(nccl)]
pub fn cuda_uuid(device: usize) -> Result<Option<String>> {
    // SAFETY: the text is freed once.
    unsafe {
        let mut uuid = null_mut();
        check(playfield_cuda_uuid(device as c_int, &mut uuid))?;
        let text = CStr::from_ptr(uuid).to_string_lossy().into_owned();
        playfield_free(uuid);
        Ok(Some(text))
    }
}

/// This build has no NCCL.
#[cfg(not(nccl))]
pub fn cuda_uuid(_: usize) -> Result<Option<String>> {
    Ok(None)
}

/// The connections between the ranks, of Gloo or NCCL.
#[derive(Debug)]
pub struct Backend(*mut RawBackend);

// SAFETY: any thread may call a process group, one at a time: the methods that communicate take `&mut self`.
unsafe impl Send for Backend {}

impl Backend {
    /// Connects `rank` to the others with Gloo. It listens on `address`, or on the address of `interface` where there is one. `name`
    /// tells several such backends of one store apart.
    pub fn gloo(
        store: &Store,
        name: &str,
        rank: usize,
        world_size: usize,
        address: &str,
        interface: Option<&str>,
        timeout: Duration,
    ) -> Result<Self> {
        let [name, address, interface] = [string(name)?, string(address)?, string(interface.unwrap_or_default())?];
        let (texts, timeout) = ([name.as_ptr(), address.as_ptr(), interface.as_ptr()], milliseconds(timeout));
        let (rank, world_size, mut gloo) = (rank as c_int, world_size as c_int, null_mut());
        // SAFETY: the strings live during the call; the process group shares ownership of the store.
        check(unsafe {
            let [name, address, interface] = texts;
            playfield_gloo_join(store.0, name, rank, world_size, address, interface, timeout, &mut gloo)
        })?;
        Ok(Self(gloo))
    }

    /// Connects `rank` to the others with NCCL, for tensors on the CUDA device `device`.
    #[cfg(nccl)]
    pub fn nccl(store: &Store, rank: usize, world_size: usize, device: usize, timeout: Duration) -> Result<Self> {
        let (rank, world_size, device) = (rank as c_int, world_size as c_int, device as c_int);
        let mut nccl = null_mut();
        // SAFETY: the process group shares ownership of the store. After an error `nccl` is null, or owned here.
        let result =
            check(unsafe { playfield_nccl_join(store.0, rank, world_size, device, milliseconds(timeout), &mut nccl) });
        let nccl = Self(nccl);
        result.map(|()| nccl)
    }

    /// Without NCCL there is nothing to connect.
    #[cfg(not(nccl))]
    pub fn nccl(_: &Store, _: usize, _: usize, _: usize, _: Duration) -> Result<Self> {
        Err("this build has no NCCL".into())
    }

    /// Replaces the values by their sums or maxima over all ranks.
    pub fn all_reduce(&mut self, values: &mut [f64], maximum: bool) -> Result<()> {
        // SAFETY: the slice is borrowed exclusively until the operation has ended.
        check(unsafe { playfield_all_reduce(self.0, values.as_mut_ptr(), values.len() as i64, maximum) })
    }

    /// Replaces the values of a contiguous tensor of fp32 by their sums over all ranks, which are exchanged as bfloat16 and added in
    /// fp32 if `bf16`.
    pub fn sum(&mut self, values: &mut Tensor, bf16: bool) -> Result<()> {
        assert!(values.kind() == Kind::Float && values.is_contiguous(), "{values:?}");
        // SAFETY: the tensor is borrowed exclusively until the operation has ended.
        check(unsafe { playfield_sum(self.0, values.as_mut_ptr().cast(), bf16) })
    }

    /// Replaces the bytes by those of rank 0.
    pub fn broadcast(&mut self, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        check(unsafe { playfield_broadcast(self.0, bytes.as_mut_ptr(), bytes.len() as i64) })
    }

    /// Sends the bytes to rank `to`. They are borrowed exclusively because libtorch's tensors are.
    pub fn send(&mut self, bytes: &mut [u8], to: usize) -> Result<()> {
        // SAFETY: as above.
        check(unsafe { playfield_send(self.0, bytes.as_mut_ptr(), bytes.len() as i64, to as c_int) })
    }

    /// Receives as many bytes from rank `from`.
    pub fn receive(&mut self, bytes: &mut [u8], from: usize) -> Result<()> {
        // SAFETY: as above.
        check(unsafe { playfield_receive(self.0, bytes.as_mut_ptr(), bytes.len() as i64, from as c_int) })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: this value is the only owner; null is allowed.
        unsafe { playfield_backend_free(self.0) }
    }
}
