//! Reading finished and running training runs: run folders, learning curves over seeds, charts, and an HTML report.
//!
//! Everything is read from the files of a run folder, so that runs of other machines and earlier versions can be compared. The crate
//! depends on neither libtorch nor any environment, writes no file and prints nothing: functions return text or bytes.
//!
//! | module | content |
//! |---|---|
//! | [`run`] | a run folder: settings, episodes, metrics, state |
//! | [`group`] | runs that differ only in their seed |
//! | [`curve`] | a quantity over steps or time, and its mean and quartiles over seeds |
//! | [`chart`], [`plot`] | charts as SVG and PNG: primitives, and the chart of learning curves |
//! | [`html`] | the report |
//! | [`format`](mod@format), [`stats`] | numbers as text, quantiles |

pub mod chart;
pub mod curve;
pub mod format;
pub mod group;
pub mod html;
pub mod plot;
pub mod run;
pub mod stats;
pub mod text;

pub use group::Group;
pub use run::RunFolder;
