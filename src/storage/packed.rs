//! What the program carries with it: packed by build.rs, with zlib, and unpacked where it is used.

use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::error::{Error, Result};

/// The bytes that build.rs packed as `$name`, for [`unpack`].
macro_rules! packed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/packed/", $name))
    };
}
pub(crate) use packed;

/// The bytes that were packed. Only a program that is itself damaged has any that cannot be unpacked.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ZlibDecoder::new(packed)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::run(format!("this program is damaged: {e}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_and_damage_is_an_error() {
        for (packed, name) in [
            (&packed!("model.safetensors")[..], "src/demo/model/model.safetensors"),
            (packed!("tokenizer.json"), "src/demo/model/tokenizer.json"),
            (packed!("Cargo.lock"), "Cargo.lock"),
        ] {
            let file = std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
            assert!(unpack(packed).unwrap() == file, "{name}");
            assert!(packed.len() < file.len(), "{name}: {} bytes", packed.len());
            let mut damaged = packed.to_vec();
            let last = damaged.len() - 1;
            damaged[last] ^= 1;
            assert!(unpack(&damaged).is_err() && unpack(&packed[..packed.len() / 2]).is_err(), "{name}");
        }
    }
}
