//! Resized frames equal OpenCV's bit for bit. `golden/generate.py` wrote the values.

mod common;

use common::{Script, space};
use playfield_core::{Dtype, Env, Error, Obs, ObsRef};
use playfield_wrappers::{Resize, WrappedEnv};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    from: Vec<usize>,
    to: Vec<usize>,
    checksum: u64,
    pixels: Vec<u8>,
}

/// The frame that `generate.py` made.
fn frame(kind: &str, len: usize) -> Vec<u8> {
    let mut x = 12345_u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let byte = (x >> 24) as u8;
        match kind {
            "noise" => byte,
            "binary" => 255 * (byte >> 7),
            _ => 255,
        }
    };
    (0..len).map(|_| next()).collect()
}

fn resized(env: Script, height: usize, width: usize) -> WrappedEnv<Resize> {
    let wrapper = Resize::new(env.spec(), height, width).unwrap();
    WrappedEnv::new(Box::new(env), wrapper)
}

#[test]
fn equals_opencv() {
    let golden: Golden = serde_json::from_str(include_str!("golden/area.json")).unwrap();
    assert!(golden.cases.len() >= 40);
    for case in golden.cases {
        let pixels = frame(&case.kind, case.from.iter().product());
        let env = Script::frames(&case.from, vec![pixels]);
        let mut resize = resized(env, case.to[0], case.to[1]);
        assert_eq!(resize.spec().shape, case.to);
        let mut obs = Obs::zeros(Dtype::U8, resize.spec().frame_len());
        resize.reset(None, obs.as_mut()).unwrap();
        let ObsRef::U8(ours) = obs.as_ref() else { panic!("frames") };
        let kept: Vec<u8> = if ours.len() <= 300 { ours.to_vec() } else { ours.iter().step_by(37).copied().collect() };
        let what = format!("{} {:?} to {:?}", case.kind, case.from, case.to);
        assert_eq!(kept, case.pixels, "{what}");
        let checksum: u64 = ours.iter().enumerate().map(|(i, &p)| u64::from(p) * (1 + i as u64 % 251)).sum();
        assert_eq!(checksum, case.checksum, "{what}");
    }
}

#[test]
fn a_single_channel_is_gray() {
    let pixels = frame("noise", 60);
    let observe = |shape: &[usize]| {
        let mut resize = resized(Script::frames(shape, vec![pixels.clone()]), 4, 3);
        let mut obs = Obs::zeros(Dtype::U8, resize.spec().frame_len());
        resize.reset(None, obs.as_mut()).unwrap();
        (resize.spec().shape.clone(), obs)
    };
    assert_eq!(observe(&[10, 6, 1]), observe(&[10, 6]));
}

#[test]
fn frames_that_cannot_be_resized_are_an_error() {
    let refused = |shape: &[usize], to: [usize; 2]| {
        let env = Script::frames(shape, vec![vec![0; shape.iter().product()]]);
        match Resize::new(env.spec(), to[0], to[1]) {
            Err(Error::Config(message)) => message,
            _ => panic!("{shape:?} to {to:?} is not refused"),
        }
    };
    assert!(refused(&[10, 5], [84, 84]).contains("10 × 5"));
    assert!(refused(&[10, 5], [10, 6]).contains("reduce"));
    assert!(refused(&[10], [5, 5]).contains("[10]"));
    assert!(refused(&[10, 10, 4], [5, 5]).contains("[10, 10, 4]"));
    let vector = Script::numbers(space(2), vec![1.0]);
    assert!(matches!(Resize::new(vector.spec(), 1, 1), Err(Error::Config(_))));
}
