//! TensorBoard's event file.

mod messages;
mod record;

use crate::gif::Gif;
use messages::{
    DataClass, DataType, Dim, Event, HParamsPluginData, PluginData, SessionEndInfo, SessionLog, SessionStartInfo,
    SessionStatus, Setting, Status, Summary, SummaryImage, SummaryMetadata, SummaryValue, TensorProto, TensorShape,
};
use playfield_core::metrics::{Metric, Row, Sink, Tag};
use playfield_core::{Error, Image, Result};
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Buckets of a histogram: the default of `tf.summary.histogram`.
const BUCKETS: usize = 30;

/// Metrics for TensorBoard; the x-axis is agent steps.
pub struct TensorBoard {
    path: PathBuf,
    file: BufWriter<File>,
    /// Descriptions of tags that [`Metric::find`] does not know.
    descriptions: HashMap<String, String>,
    /// The tags written so far: the first value of a tag carries its description.
    written: HashSet<String>,
}

impl TensorBoard {
    /// Creates an event file in `folder`. Where the run resumes from step `resumed_at`, an event tells TensorBoard to drop what
    /// earlier sessions wrote beyond it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn create(folder: &Path, resumed_at: Option<u64>) -> Result<Self> {
        let (path, file) = create_new(folder)?;
        let mut board = Self::new(path, file);
        board.write(&Event { file_version: Some("brain.Event:2".into()), ..event(0) })?;
        // TensorBoard drops everything at this event's step and later: the checkpoint's own step stays. The first such event of
        // a run drops nothing, so a new run needs one, too.
        let start = SessionLog { status: SessionStatus::Start.into() };
        board.write(&Event { session_log: Some(start), ..event(resumed_at.map_or(0, |step| step + 1)) })?;
        board.flush()?;
        Ok(board)
    }

    fn new(path: PathBuf, file: File) -> Self {
        Self { path, file: BufWriter::new(file), descriptions: HashMap::new(), written: HashSet::new() }
    }

    /// Writes values of one step. The first of a tag gets its description.
    fn summary(&mut self, step: u64, values: impl IntoIterator<Item = SummaryValue>) -> Result<()> {
        let mut summary = Summary::default();
        for mut value in values {
            if self.written.insert(value.tag.clone()) {
                let table = Metric::find(&value.tag).map(|metric| match metric.unit {
                    "" => metric.meaning.into(),
                    unit => format!("{} [{unit}]", metric.meaning),
                });
                if let Some(text) = self.descriptions.get(&value.tag).cloned().or(table) {
                    value.metadata.get_or_insert_default().summary_description = text;
                }
                if value.simple_value.is_some() {
                    // TensorBoard's data server ignores the description of a scalar without a class.
                    let metadata = value.metadata.get_or_insert_default();
                    metadata.data_class = DataClass::Scalar.into();
                    metadata.plugin_data = Some(PluginData { plugin_name: "scalars".into(), content: Vec::new() });
                }
            }
            summary.value.push(value);
        }
        self.write(&Event { summary: Some(summary), ..event(step) })
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        record::write(&mut self.file, &event.encode_to_vec()).map_err(Error::io("write", &self.path))
    }
}

impl Sink for TensorBoard {
    fn scalars(&mut self, row: &Row) -> Result<()> {
        let scalar = |(tag, number): &(Tag, f64)| SummaryValue {
            tag: tag.to_string(),
            simple_value: Some(*number as f32),
            ..SummaryValue::default()
        };
        self.summary(row.step, row.values.iter().map(scalar))?;
        self.flush()
    }

    /// [`BUCKETS`] buckets of equal width between the smallest and the largest finite value, as `tf.summary.histogram` has them.
    fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        let finite = || values.iter().map(|v| f64::from(*v)).filter(|v| v.is_finite());
        let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let width = (high - low) / BUCKETS as f64;
        let mut counts = [0.0; BUCKETS];
        // The largest value belongs to the last bucket; where all values are equal, so do all.
        let bucket = |v: f64| if v < high { ((v - low) / width) as usize } else { BUCKETS };
        finite().for_each(|v| counts[bucket(v).min(BUCKETS - 1)] += 1.0);
        let edge = |i: usize| if i == BUCKETS { high } else { low + i as f64 * width };
        let triple = |i: usize| [edge(i), edge(i + 1), counts[i]];
        let triples = if low <= high { (0..BUCKETS).flat_map(triple).collect() } else { Vec::new() };
        let tensor = tensor(DataType::Double, &[triples.len() / 3, 3]);
        let tensor = TensorProto { double_val: triples, ..tensor };
        self.summary(step, [tensor_value(tag, "histograms", &[], tensor)])
    }

    fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        let tensor = TensorProto { string_val: vec![text.into()], ..tensor(DataType::String, &[1]) };
        self.summary(step, [tensor_value(tag, "text", &[], tensor)])
    }

    /// An animated GIF among the images.
    fn video(&mut self, step: u64, tag: &str, frames: &[Image], fps: f64) -> Result<()> {
        let Some(first) = frames.first() else { return Ok(()) };
        let mut gif = Gif::new(Vec::new(), first, fps, 1)?;
        frames.iter().try_for_each(|frame| gif.push(frame))?;
        let (width, height) = (first.width as i32, first.height as i32);
        let image = SummaryImage { height, width, colorspace: 3, encoded_image_string: gif.finish()? };
        self.summary(step, [SummaryValue { tag: tag.into(), image: Some(image), ..SummaryValue::default() }])
    }

    /// One session of the HParams plugin. The metrics are written as scalars, too: the plugin shows the last value of each tag.
    ///
    /// There is no `experiment` message: of several runs the plugin would read the first one's only, so that the settings of
    /// other algorithms had no column. Without it, the plugin lists the settings of all runs, those that differ first.
    fn hparams(&mut self, settings: &toml::Table, metrics: &Row) -> Result<()> {
        let start = SessionStartInfo {
            hparams: flat(settings).into_iter().map(|(name, value)| (name, setting(&value))).collect(),
            start_time_secs: now() - metrics.elapsed.as_secs_f64(),
        };
        let end = SessionEndInfo { status: Status::Success.into(), end_time_secs: now() };
        let none = HParamsPluginData::default;
        let parts = [
            ("session_start_info", HParamsPluginData { session_start_info: Some(start), ..none() }),
            ("session_end_info", HParamsPluginData { session_end_info: Some(end), ..none() }),
        ];
        let values = parts.map(|(name, data)| {
            // The plugin reads the metadata only; the tensor is a placeholder.
            let placeholder = TensorProto { float_val: vec![0.0], ..tensor(DataType::Float, &[]) };
            tensor_value(&format!("_hparams_/{name}"), "hparams", &data.encode_to_vec(), placeholder)
        });
        self.summary(0, values)?;
        self.scalars(metrics)
    }

    fn describe(&mut self, tag: &str, text: &str) {
        self.descriptions.insert(tag.into(), text.into());
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }
}

/// A tensor of `shape`, to be filled.
fn tensor(dtype: DataType, shape: &[usize]) -> TensorProto {
    let dim = shape.iter().map(|size| Dim { size: *size as i64 }).collect();
    TensorProto { dtype: dtype.into(), tensor_shape: Some(TensorShape { dim }), ..TensorProto::default() }
}

/// A tensor, and the plugin of TensorBoard that shows it.
fn tensor_value(tag: &str, plugin: &str, content: &[u8], tensor: TensorProto) -> SummaryValue {
    let plugin_data = Some(PluginData { plugin_name: plugin.into(), content: content.into() });
    let metadata = SummaryMetadata { plugin_data, ..SummaryMetadata::default() };
    SummaryValue { tag: tag.into(), metadata: Some(metadata), tensor: Some(tensor), ..SummaryValue::default() }
}

/// The settings of nested tables, under their keys joined by dots.
fn flat(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let nested = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(table) => flat(table).into_iter().map(|(inner, v)| (format!("{key}.{inner}"), v)).collect(),
        value => vec![(key.clone(), value.clone())],
    };
    table.iter().flat_map(nested).collect()
}

/// A setting in the plugin's types: bool, float or string.
fn setting(value: &toml::Value) -> Setting {
    let none = Setting::default();
    match (value, value.as_float().or(value.as_integer().map(|n| n as f64))) {
        (toml::Value::Boolean(flag), _) => Setting { bool_value: Some(*flag), ..none },
        (_, Some(number)) => Setting { number_value: Some(number), ..none },
        (toml::Value::String(text), _) => Setting { string_value: Some(text.clone()), ..none },
        (other, _) => Setting { string_value: Some(other.to_string()), ..none },
    }
}

fn event(step: u64) -> Event {
    Event { wall_time: now(), step: step as i64, ..Event::default() }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// Creates a file that did not exist. TensorBoard reads files in the order of their names.
fn create_new(folder: &Path) -> Result<(PathBuf, File)> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".into());
    for n in 0.. {
        let (time, pid) = (now() as u64, std::process::id());
        let path = folder.join(format!("events.out.tfevents.{time:010}.{}.{pid}.{n}", host.trim()));
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", &path)(e)),
        }
    }
    unreachable!("one of the numbers is free")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    fn row(step: u64, value: f64) -> Row {
        let values = vec![("train/loss".into(), value), ("time/fps".into(), value * 2.0)];
        Row { step, elapsed: Duration::ZERO, values }
    }

    /// The output of a Python `script` that reads the event files in `folder` with TensorBoard's own reader, as `events`.
    fn python(folder: &Path, script: &str) -> String {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
        let read = "import io, sys
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
events = EventAccumulator(sys.argv[1]).Reload()
def values(tag):
    return [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
";
        let output = Command::new(python).arg("-c").arg(format!("{read}{script}")).arg(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Two sessions, of which the second starts before the end of the first.
    #[test]
    fn tensorboard_reads_the_tags_and_drops_what_was_undone() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = TensorBoard::create(dir.path(), None).unwrap();
        for step in [10, 20, 30] {
            first.scalars(&row(step, step as f64 / 8.0)).unwrap();
        }
        drop(first);
        let mut second = TensorBoard::create(dir.path(), Some(20)).unwrap();
        second.scalars(&row(25, 100.0)).unwrap();
        drop(second);
        let script = "for tag in sorted(events.Tags()['tensors']):
    print(tag, [(step, float(value)) for step, value in values(tag)])";
        let expected =
            "time/fps [(10, 2.5), (20, 5.0), (25, 200.0)]\ntrain/loss [(10, 1.25), (20, 2.5), (25, 100.0)]\n";
        assert_eq!(python(dir.path(), script), expected);
    }

    /// The description of a tag is that of the table, or the algorithm's own.
    #[test]
    fn tensorboard_reads_descriptions() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(dir.path(), None).unwrap();
        board.describe("toy/surprise", "−log p of the observation");
        let values = ["time/fps", "train/per_beta", "async/return/3", "toy/surprise", "toy/other"];
        let values = values.map(|tag| (tag.into(), 1.0)).to_vec();
        (1..3).for_each(|step| board.scalars(&Row { step, elapsed: Duration::ZERO, values: values.clone() }).unwrap());
        drop(board);
        let script = "for tag in sorted(events.Tags()['tensors']):
    metadata = events.SummaryMetadata(tag)
    print(metadata.plugin_data.plugin_name, metadata.data_class, tag, '|', metadata.summary_description)";
        assert_eq!(
            python(dir.path(), script),
            "scalars 1 async/return/3 | mean raw return of the episodes of thread N since the previous row [return]\n\
             scalars 1 time/fps | agent steps per second since the previous row, over all environments [steps/s]\n\
             scalars 1 toy/other | \n\
             scalars 1 toy/surprise | −log p of the observation\n\
             scalars 1 train/per_beta | β: the exponent of the importance-sampling weights of prioritized replay\n"
        );
    }

    #[test]
    fn tensorboard_reads_histograms_and_texts() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(dir.path(), None).unwrap();
        // 61 values from −1 to 2: two in each bucket of width 0.1, three in the last.
        let mut values: Vec<f32> = (0..60).map(|i| -0.975 + i as f32 * 0.05).collect();
        (values[0], values[59]) = (-1.0, 2.0);
        values.extend([f32::NAN, f32::INFINITY, 1.95]);
        board.histogram(7, "weights/a", &values).unwrap();
        board.histogram(8, "weights/a", &[0.5; 4]).unwrap();
        board.histogram(9, "weights/a", &[f32::NAN]).unwrap();
        board.text(7, "config", "**seed** = 1").unwrap();
        drop(board);
        let script = "for tag in ['weights/a', 'config']:
    print(events.SummaryMetadata(tag).plugin_data.plugin_name)
import numpy
(first, many), (second, equal), (third, none) = values('weights/a')
assert numpy.allclose(many[:, 0], -1 + 0.1 * numpy.arange(30)) and numpy.allclose(many[:, 1], -0.9 + 0.1 * numpy.arange(30))
assert many[0, 0] == -1 and many[29, 1] == 2
assert many[:, 2].tolist() == [2] * 29 + [3], many
assert (equal[:, :2] == 0.5).all() and equal[:, 2].tolist() == [0] * 29 + [4]
print(first, second, third, none.shape, values('config'))";
        assert_eq!(
            python(dir.path(), script),
            "histograms\ntext\n7 8 9 (0, 3) [(7, array([b'**seed** = 1'], dtype=object))]\n"
        );
    }

    #[test]
    fn tensorboard_reads_a_video_as_an_animated_gif() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(dir.path(), None).unwrap();
        let frame = |rgb: [u8; 3]| Image { width: 4, height: 2, rgb: rgb.repeat(8) };
        board.video(5, "eval/video", &[frame([255, 0, 0]), frame([0, 0, 255])], 20.0).unwrap();
        board.video(6, "eval/video", &[], 20.0).unwrap();
        let small = Image { width: 1, height: 1, rgb: vec![0; 3] };
        let error = board.video(7, "eval/video", &[frame([0; 3]), small], 20.0).unwrap_err().to_string();
        assert_eq!(error, "frames of 4 × 2 pixels and then of 1 × 1: all frames of a GIF have the same size");
        drop(board);
        let script = "from PIL import Image
(step, (width, height, film)), = values('eval/video')
film = Image.open(io.BytesIO(film))
print(events.SummaryMetadata('eval/video').plugin_data.plugin_name, step, int(width), int(height))
print(film.format, film.size, film.n_frames, film.info['duration'], film.info['loop'])
for i in range(film.n_frames):
    film.seek(i)
    print(film.convert('RGB').getpixel((3, 1)))";
        let expected = "images 5 4 2\nGIF (4, 2) 2 50 0\n(255, 0, 0)\n(0, 0, 255)\n";
        assert_eq!(python(dir.path(), script), expected);
    }

    /// The plugin's own parser, and the session that its table shows.
    #[test]
    fn tensorboard_reads_hparams() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(dir.path(), None).unwrap();
        let settings = "seed = 3\ndevice = 'cpu'\n[paac]\ngamma = 0.99\nclip = true\nhidden = [8, 8]".parse().unwrap();
        let metrics =
            Row { step: 100, elapsed: Duration::from_secs(60), values: vec![("eval/mean_reward".into(), 12.5)] };
        board.hparams(&settings, &metrics).unwrap();
        drop(board);
        let script = "from tensorboard.plugins.hparams import metadata, plugin_data_pb2
def content(tag):
    return events.SummaryMetadata(tag).plugin_data.content
assert metadata.EXPERIMENT_TAG not in events.Tags()['tensors']
start = metadata.parse_session_start_info_plugin_data(content(metadata.SESSION_START_INFO_TAG))
end = metadata.parse_session_end_info_plugin_data(content(metadata.SESSION_END_INFO_TAG))
for name in sorted(start.hparams):
    value = start.hparams[name]
    print(name, getattr(value, value.WhichOneof('kind')))
print(end.status, round(end.end_time_secs - start.start_time_secs))
print([(step, float(value)) for step, value in values('eval/mean_reward')])";
        let expected = "device cpu\npaac.clip True\npaac.gamma 0.99\npaac.hidden [8, 8]\nseed 3.0\n\
                        1 60\n[(100, 12.5)]\n";
        assert_eq!(python(dir.path(), script), expected);
    }

    #[test]
    fn two_writers_in_one_second_have_a_file_each() {
        let dir = tempfile::tempdir().unwrap();
        let boards: Vec<_> = (0..3).map(|_| TensorBoard::create(dir.path(), None).unwrap()).collect();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), boards.len());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut board = TensorBoard::new("/dev/full".into(), file);
        assert!(board.scalars(&row(1, 1.0)).unwrap_err().to_string().contains("cannot write /dev/full"));
    }
}
