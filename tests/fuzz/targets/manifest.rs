//! A checkpoint with any manifest: the checkpoint or an error, and no panic. Its other files are those of a small checkpoint.
#![no_main]

use libfuzzer_sys::fuzz_target;
use playfield_core::{Array, Checkpoints, Snapshot};
use std::fs;
use std::sync::LazyLock;

static CHECKPOINTS: LazyLock<(tempfile::TempDir, Checkpoints)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(dir.path(), 2);
    let mut snapshot = Snapshot { step: 7, ..Snapshot::default() };
    snapshot.params.insert("w".into(), Array::new(&[2], &[1.0_f32, 2.0]));
    snapshot.put("x", &1);
    checkpoints.save(&snapshot, Some(1.0)).unwrap();
    (dir, checkpoints)
});

fuzz_target!(|bytes: &[u8]| {
    let (_, checkpoints) = &*CHECKPOINTS;
    fs::write(checkpoints.path(7).join("manifest.json"), bytes).unwrap();
    if let Ok(loaded) = checkpoints.latest() {
        assert_eq!(loaded.snapshot.params.len(), 1, "the files are those that were saved");
    }
    let _ = (checkpoints.best().is_ok(), checkpoints.list().unwrap());
});
