//! MP4 files of H.264 video, written frame by frame.
//!
//! OpenH264 is built from its source and `shiguredo_mp4` writes the container, so that no program and no library of the
//! machine is needed. Colors have half the resolution of brightness (4:2:0), as every player supports it.
//!
//! H.264 may be subject to patents where videos are distributed or sold; Cisco's license covers only Cisco's own binaries.

use openh264::OpenH264API;
use openh264::encoder::{Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, RateControlMode, VuiConfig};
use openh264::formats::{RgbSliceU8, YUVBuffer};
use playfield_core::{Error, Image, Result};
use shiguredo_mp4::boxes::{Avc1Box, AvccBox, SampleEntry, VisualSampleEntryFields};
use shiguredo_mp4::mux::{Mp4FileMuxer, Sample};
use shiguredo_mp4::{TrackKind, Uint};
use std::io::{Seek, SeekFrom, Write};
use std::num::NonZeroU32;

/// The bounds of a side that OpenH264 supports, in pixels.
const SIDES: std::ops::RangeInclusive<usize> = 16..=3840;
/// The bound of the shorter side.
const SHORTER: usize = 2160;
/// Seconds between two frames that do not depend on others, where a player can begin.
const SEEK_SECONDS: f64 = 2.0;
/// Units of time per frame.
const TICKS: u32 = 1000;
/// The types of H.264's units that hold the parameters of the sequence and of pictures.
const SPS: u8 = 7;
const PPS: u8 = 8;

/// An MP4 being written.
pub struct Mp4<W: Write + Seek> {
    writer: W,
    encoder: Encoder,
    muxer: Mp4FileMuxer,
    /// Width and height of the frames.
    size: (usize, usize),
    /// Units of time per second.
    timescale: NonZeroU32,
    /// Bytes written.
    position: u64,
    /// Whether the container has the parameters of the video, which come with the first frame.
    described: bool,
}

impl<W: Write + Seek> Mp4<W> {
    /// Begins an MP4 of frames of the size of `first` at `fps` frames per second. An odd side gets one more pixel, equal to the
    /// last.
    ///
    /// # Errors
    /// As [`check_size`], and where the encoder or `writer` fails.
    pub fn new(mut writer: W, first: &Image, fps: f64) -> Result<Self> {
        check_size(first)?;
        let config = EncoderConfig::new()
            // Constant quality, at OpenH264's default quantization. The other modes skip frames, or print a warning.
            .rate_control_mode(RateControlMode::Off)
            .adaptive_quantization(false)
            .skip_frames(false)
            .max_frame_rate(FrameRate::from_hz(fps as f32))
            .intra_frame_period(IntraFramePeriod::from_num_frames((SEEK_SECONDS * fps).ceil() as u32))
            .vui(VuiConfig::bt601());
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(Error::other)?;
        let muxer = Mp4FileMuxer::new().map_err(Error::other)?;
        writer.write_all(muxer.initial_boxes_bytes()).map_err(Error::other)?;
        let position = muxer.initial_boxes_bytes().len() as u64;
        let timescale = NonZeroU32::new((fps * f64::from(TICKS)).round() as u32).unwrap_or(NonZeroU32::MIN);
        let size = (first.width, first.height);
        Ok(Self { writer, encoder, muxer, size, timescale, position, described: false })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// [`Error::Config`] for a frame of another size than the first, and where the encoder or the writer fails.
    pub fn push(&mut self, image: &Image) -> Result<()> {
        let (width, height) = self.size;
        if (image.width, image.height) != self.size {
            return Err(Error::config(format!(
                "frames of {width} × {height} pixels and then of {} × {}: all frames of an MP4 have the same size",
                image.width, image.height
            )));
        }
        check_size(image)?;
        let even = even(image);
        let yuv = YUVBuffer::from_rgb8_source(RgbSliceU8::new(&even.rgb, (even.width, even.height)));
        let encoded = self.encoder.encode(&yuv).map_err(Error::other)?;
        let keyframe = matches!(encoded.frame_type(), FrameType::IDR);
        let (mut data, mut sets) = (Vec::new(), [Vec::new(), Vec::new()]);
        for layer in (0..encoded.num_layers()).filter_map(|i| encoded.layer(i)) {
            for unit in (0..layer.nal_count()).filter_map(|i| layer.nal_unit(i)) {
                // OpenH264 marks the start of a unit by zeros and a one; MP4 has its length instead, and parameter sets elsewhere.
                let start = unit.iter().position(|byte| *byte != 0).map_or(unit.len(), |one| one + 1);
                let unit = &unit[start..];
                match unit.first().map(|header| header & 31) {
                    None => {}
                    Some(SPS) => sets[0].push(unit.to_vec()),
                    Some(PPS) => sets[1].push(unit.to_vec()),
                    Some(_) => {
                        data.extend((unit.len() as u32).to_be_bytes());
                        data.extend(unit);
                    }
                }
            }
        }
        let sample_entry = match self.described {
            true => None,
            false => Some(entry(&even, sets)?),
        };
        self.described = true;
        self.writer.write_all(&data).map_err(Error::other)?;
        let sample = Sample {
            track_kind: TrackKind::Video,
            sample_entry,
            keyframe,
            timescale: self.timescale,
            duration: TICKS,
            data_offset: self.position,
            data_size: data.len(),
        };
        self.position += data.len() as u64;
        self.muxer.append_sample(&sample).map_err(Error::other)
    }

    /// Ends the MP4 and returns the writer.
    ///
    /// # Errors
    /// Where the writer fails.
    pub fn finish(mut self) -> Result<W> {
        let finished = self.muxer.finalize().map_err(Error::other)?;
        for (position, bytes) in finished.offset_and_bytes_pairs() {
            self.writer.seek(SeekFrom::Start(position)).map_err(Error::other)?;
            self.writer.write_all(bytes).map_err(Error::other)?;
        }
        Ok(self.writer)
    }
}

/// Rejects a frame of a size that the encoder does not support.
///
/// # Errors
/// [`Error::Config`] with the size and the bounds.
pub fn check_size(image: &Image) -> Result<()> {
    let Image { width, height, rgb } = image;
    let sides = SIDES.contains(width) && SIDES.contains(height) && *width.min(height) <= SHORTER;
    match sides && rgb.len() == 3 * width * height {
        true => Ok(()),
        false => Err(Error::config(format!(
            "frames of {width} × {height} pixels: an MP4 supports {} × {0} to {} × {SHORTER}; record a GIF instead",
            SIDES.start(),
            SIDES.end()
        ))),
    }
}

/// The image with its last column and row repeated where their number is odd.
fn even(image: &Image) -> Image {
    let (width, height) = (image.width.next_multiple_of(2), image.height.next_multiple_of(2));
    let mut rgb = Vec::with_capacity(3 * width * height);
    for row in image.rgb.chunks_exact(3 * image.width) {
        rgb.extend_from_slice(row);
        if width > image.width {
            rgb.extend_from_slice(&row[row.len() - 3..]);
        }
    }
    if height > image.height {
        rgb.extend_from_within(rgb.len() - 3 * width..);
    }
    Image { width, height, rgb }
}

/// The description of the video in the container.
fn entry(frame: &Image, [sps_list, pps_list]: [Vec<Vec<u8>>; 2]) -> Result<SampleEntry> {
    // A sequence parameter set begins with its type, the profile, the profile's constraints and the level.
    let Some([_, profile, constraints, level, ..]) = sps_list.first().map(Vec::as_slice) else {
        return Err(Error::other("OpenH264 returned a first frame without parameters".to_string()));
    };
    let avcc_box = AvccBox {
        avc_profile_indication: *profile,
        profile_compatibility: *constraints,
        avc_level_indication: *level,
        length_size_minus_one: Uint::new(3),
        sps_list: sps_list.clone(),
        pps_list,
        chroma_format: None,
        bit_depth_luma_minus8: None,
        bit_depth_chroma_minus8: None,
        sps_ext_list: Vec::new(),
    };
    let visual = VisualSampleEntryFields {
        data_reference_index: VisualSampleEntryFields::DEFAULT_DATA_REFERENCE_INDEX,
        width: frame.width as u16,
        height: frame.height as u16,
        horizresolution: VisualSampleEntryFields::DEFAULT_HORIZRESOLUTION,
        vertresolution: VisualSampleEntryFields::DEFAULT_VERTRESOLUTION,
        frame_count: VisualSampleEntryFields::DEFAULT_FRAME_COUNT,
        compressorname: VisualSampleEntryFields::NULL_COMPRESSORNAME,
        depth: VisualSampleEntryFields::DEFAULT_DEPTH,
    };
    Ok(SampleEntry::Avc1(Avc1Box { visual, avcc_box, unknown_boxes: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::path::Path;
    use std::process::Command;

    /// A frame whose left half has one color and whose right half has another.
    fn halves(width: usize, height: usize, left: [u8; 3], right: [u8; 3]) -> Image {
        let row = [left.repeat(width / 2), right.repeat(width - width / 2)].concat();
        Image { width, height, rgb: row.repeat(height) }
    }

    /// OpenCV, with FFmpeg inside, reads the frames, their size, rate and colors.
    #[test]
    fn opencv_reads_the_frames() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        let (red, blue, gray) = ([200, 30, 30], [30, 30, 200], [128; 3]);
        let frames = [halves(33, 17, red, blue), halves(33, 17, gray, red), halves(33, 17, blue, gray)];
        let mut video = Mp4::new(std::fs::File::create(&path).unwrap(), &frames[0], 15.0).unwrap();
        (0..45).for_each(|i| video.push(&frames[i % 3]).unwrap());
        video.finish().unwrap();
        let script = "import cv2, sys
video = cv2.VideoCapture(sys.argv[1])
print(video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT))
for i in range(45):
    ok, frame = video.read()
    assert ok, i
    if i in (0, 1, 44):
        print(frame.shape, *[int(c) for c in (*frame[8, 8, ::-1], *frame[8, 25, ::-1])])
assert not video.read()[0]";
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
        let output = Command::new(python).args(["-c", script]).arg(&path).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let mut lines = printed.lines();
        assert_eq!(lines.next(), Some("15.0 45.0"), "{}", String::from_utf8_lossy(&output.stderr));
        for (i, expected) in [(0, [red, blue]), (1, [gray, red]), (44, [blue, gray])] {
            let line = lines.next().unwrap();
            let colors = line.strip_prefix("(18, 34, 3) ").unwrap_or_else(|| panic!("{printed}"));
            let colors: Vec<i32> = colors.split(' ').map(|c| c.parse().unwrap()).collect();
            let near = colors.iter().zip(expected.as_flattened()).all(|(a, b)| (a - i32::from(*b)).abs() <= 8);
            assert!(near, "frame {i}: {line}, expected {expected:?}");
        }
    }

    #[test]
    fn frames_of_other_sizes_are_errors() {
        let first = halves(32, 32, [0; 3], [255; 3]);
        let mut video = Mp4::new(Cursor::new(Vec::new()), &first, 30.0).unwrap();
        let error = video.push(&halves(34, 32, [0; 3], [255; 3])).unwrap_err().to_string();
        assert_eq!(error, "frames of 32 × 32 pixels and then of 34 × 32: all frames of an MP4 have the same size");
        for (width, height) in [(15, 100), (4000, 100), (2200, 2200)] {
            let frame = Image { width, height, rgb: vec![0; 3 * width * height] };
            let error = check_size(&frame).unwrap_err().to_string();
            assert!(error.contains("an MP4 supports 16 × 16 to 3840 × 2160; record a GIF instead"), "{error}");
        }
    }
}
