use super::{vfio_user_codec, vfio_user_session};
use std::fs;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{name}: only {} files", files.len());
    files
}

/// Calls `run` with every file, and with many that have a few bits or bytes changed.
fn bend(files: &[Vec<u8>], run: fn(&[u8])) {
    let mut random = fastrand::Rng::with_seed(0x9e37_79b9);
    for file in files {
        run(file);
        for _ in 0..400 {
            let mut bytes = file.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap(),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes[at] ^= 1 << random.u8(..8),
                }
            }
            run(&bytes);
        }
    }
}

#[test]
fn the_codec_takes_its_corpus_and_anything_near_it() {
    bend(&corpus("vfio_user_codec"), vfio_user_codec);
}

#[test]
fn a_connection_takes_its_corpus_and_anything_near_it() {
    bend(&corpus("vfio_user_session"), vfio_user_session);
}

#[test]
fn the_corpus_reaches_what_it_is_meant_to_reach() {
    // A session that maps, so that the model has something to compare.
    let files = corpus("vfio_user_session");
    let map = [0x02, 0x00, 0x30, 0x00, 0x00, 0x00];
    assert!(files.iter().any(|file| file.windows(6).any(|w| w == map)));
}
