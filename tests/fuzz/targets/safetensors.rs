//! A snapshot from any bytes, its safetensors headers included: an error, or a snapshot that is written and read back unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use playfield_core::{Dtype, Snapshot};

fuzz_target!(|bytes: &[u8]| {
    // The lengths of the four parts are filled in: an input is the parameters, a byte 0xFF, and the state.
    let cut = bytes.iter().position(|&byte| byte == 0xFF).unwrap_or(bytes.len());
    let (arrays, state) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or(b"{}"));
    let mut whole = Vec::new();
    for part in [&7_u64.to_le_bytes(), arrays, arrays, state] {
        whole.extend((part.len() as u64).to_le_bytes());
        whole.extend(part);
    }
    let _ = Snapshot::from_bytes(bytes);
    let Ok(snapshot) = Snapshot::from_bytes(&whole) else { return };
    let _ = snapshot.non_finite();
    for array in snapshot.params.values() {
        let _ = (array.values::<f32>(), array.values::<u64>(), array.is_finite(), array.to_obs(Dtype::U8, 4));
    }
    assert_eq!(Snapshot::from_bytes(&snapshot.to_bytes().unwrap()).unwrap(), snapshot);
});
