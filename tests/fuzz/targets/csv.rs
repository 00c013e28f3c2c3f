//! The CSV files of a run with any content, opened as by a resumed run: rows after its step are cut, damaged ones too, and a row that is
//! written next is the last.
#![no_main]

use libfuzzer_sys::fuzz_target;
use playfield_core::EpisodeEnd;
use playfield_core::metrics::{EpisodeRow, Row, Sink};
use playfield_log::{Episodes, Progress};
use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let (progress, episodes) = (DIR.path().join("progress.csv"), DIR.path().join("episodes.csv"));
    fs::write(&progress, bytes).unwrap();
    if let Ok(mut file) = Progress::open(&progress, Some(100)) {
        file.scalars(&Row::new(100, Duration::from_secs(1), [("a/b".into(), 2.0)])).unwrap();
        file.flush().unwrap();
        let text = fs::read_to_string(&progress).unwrap();
        assert!(text.ends_with('\n') && text.lines().last().unwrap().contains("100"), "{text}");
        Progress::open(&progress, Some(100)).unwrap();
    }
    fs::write(&episodes, bytes).unwrap();
    if let Ok(mut file) = Episodes::open(&episodes, Some(100)) {
        let end = EpisodeEnd { episode_return: 1.0, length: 5 };
        file.episode(&EpisodeRow { step: 100, elapsed: Duration::from_secs(1), end }).unwrap();
        file.flush().unwrap();
        Episodes::open(&episodes, Some(100)).unwrap();
    }
});
