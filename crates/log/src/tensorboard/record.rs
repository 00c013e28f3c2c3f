//! The record format of TensorFlow, which frames the messages of an event file:
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>.

use crc::{CRC_32_ISCSI, Crc};
use std::io::{Result, Write};

/// The CRC of Castagnoli.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Writes the length of `data` (u64), its masked CRC, `data`, and its masked CRC; all numbers are little-endian.
pub(super) fn write(out: &mut impl Write, data: &[u8]) -> Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked_crc(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&masked_crc(data).to_le_bytes())
}

/// Rotated by 15 bits plus a constant, so that the CRC of data that contains CRCs stays a good checksum.
fn masked_crc(data: &[u8]) -> u32 {
    CRC32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use crate::tensorboard::messages::Event;
    use prost::Message;

    /// The bytes that TensorBoard 2.20.0's `RecordWriter` writes for the same event.
    #[test]
    fn a_record_equals_tensorboards() {
        let event = Event { wall_time: 0.5, step: 3, file_version: Some("brain.Event:2".into()), ..Event::default() };
        let mut bytes = Vec::new();
        super::write(&mut bytes, &event.encode_to_vec()).unwrap();
        let expected = b"\x1a\0\0\0\0\0\0\0\x12\x9b\xd8-\t\0\0\0\0\0\0\xe0?\x10\x03\x1a\rbrain.Event:2\x9b\xef|\x8e";
        assert_eq!(bytes, expected);
    }
}
