//! `[env]` and schedules from any text: an error or a configuration that is read back unchanged, and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use playfield_core::algorithm::{parse_section, write_section};
use playfield_core::{EnvConfig, Schedule, group};

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedules {
    learning_rate: Schedule,
}

fuzz_target!(|text: &str| {
    let Ok(table) = text.parse::<toml::Table>() else { return };
    if let Ok(config) = EnvConfig::resolve(&table, toml::Table::new()) {
        let again = write_section("env", &config).and_then(|table| EnvConfig::resolve(&table, toml::Table::new()));
        // NaN inside `kwargs` differs from itself.
        assert_eq!(format!("{:?}", again.unwrap()), format!("{config:?}"));
        let _ = (config.inner_settings(), config.thread_count(), config.step_timeout());
    }
    if let Ok(schedules) = parse_section::<Schedules>("a", &table) {
        let rate = schedules.learning_rate.over(100);
        let _ = (rate.at(0), rate.at(50), rate.at(u64::MAX), write_section("a", &schedules).unwrap());
    }
    let _ = parse_section::<group::Config>("distributed", &table);
});
