//! LZ4 for spilled buffers, in blocks, and only where a sample says that it pays.
//!
//! Blocks keep the working memory of a compression at one block, however big the buffer: a worker spills because memory is
//! short.

use std::io;

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

/// Bytes compressed at once.
const BLOCK_NBYTES: usize = 1 << 20;
/// Pieces of a buffer that are tried, and the bytes of each.
const N_SAMPLES: usize = 4;
const SAMPLE_NBYTES: usize = 8 << 10;
/// Shorter buffers are not worth the trial.
const LEAST_NBYTES: usize = 4 << 10;

/// Whether compression makes `buffer` at least a quarter shorter, as far as samples spread over it tell.
pub(super) fn pays(buffer: &[u8]) -> bool {
    if buffer.len() < LEAST_NBYTES {
        return false;
    }
    let sample_nbytes = SAMPLE_NBYTES.min(buffer.len());
    let last = buffer.len() - sample_nbytes;
    let mut out = vec![0; get_maximum_output_size(sample_nbytes)];
    let (mut before, mut after) = (0, 0);
    for sample in 0..N_SAMPLES {
        let at = last * sample / (N_SAMPLES - 1);
        before += sample_nbytes;
        after += compress_into(&buffer[at..at + sample_nbytes], &mut out).unwrap_or(sample_nbytes);
    }
    after <= before / 4 * 3
}

/// Hand `buffer` in compressed form to `write`: blocks, each after its compressed length.
///
/// # Errors
/// Those of `write`.
pub(super) fn compress(buffer: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut out = vec![0; 4 + get_maximum_output_size(BLOCK_NBYTES.min(buffer.len()))];
    for block in buffer.chunks(BLOCK_NBYTES) {
        let nbytes = compress_into(block, &mut out[4..]).map_err(io::Error::other)?;
        let length = u32::try_from(nbytes).map_err(io::Error::other)?;
        out[..4].copy_from_slice(&length.to_le_bytes());
        write(&out[..4 + nbytes])?;
    }
    Ok(())
}

/// Fill `buffer` from what [`compress`] has written of a buffer of this length. False when it is not that.
pub(super) fn decompress(mut stored: &[u8], buffer: &mut [u8]) -> bool {
    for block in buffer.chunks_mut(BLOCK_NBYTES) {
        let Some((length, rest)) = stored.split_first_chunk::<4>() else { return false };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((compressed, rest)) = rest.split_at_checked(length) else { return false };
        if decompress_into(compressed, block).ok() != Some(block.len()) {
            return false;
        }
        stored = rest;
    }
    stored.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without any pattern that LZ4 could find (an LCG's high bits).
    fn noise(nbytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..nbytes).map(|_| next()).collect()
    }

    #[test]
    fn noise_is_left_alone_and_patterns_are_not() {
        assert!(!pays(&noise(1 << 20)));
        assert!(!pays(&[0; 100]), "too short");
        assert!(pays(&vec![0; 1 << 20]));
        // A beginning that would deceive who looks only there.
        let mut mixed = vec![0; 64 << 10];
        mixed.extend(noise(4 << 20));
        assert!(!pays(&mixed));
    }

    #[test]
    fn every_length_comes_back_and_nothing_else_is_taken_for_it() {
        for nbytes in [0, 1, 4_096, BLOCK_NBYTES - 1, BLOCK_NBYTES, BLOCK_NBYTES + 1, 3 * BLOCK_NBYTES] {
            let buffer: Vec<u8> = (0..nbytes).map(|idx| (idx / 100) as u8).collect();
            let mut stored = Vec::new();
            compress(&buffer, |bytes| {
                stored.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
            let mut back = vec![0; nbytes];
            assert!(decompress(&stored, &mut back));
            assert_eq!(back, buffer);
            assert!(!decompress(&stored, &mut vec![0; nbytes + 1]));
            stored.push(0);
            assert!(!decompress(&stored, &mut back), "bytes left over");
        }
    }
}
