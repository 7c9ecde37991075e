use super::vtd_model;
use std::fs;

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/vtd_model");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    files.sort();
    files
}

#[test]
fn the_corpus_holds() {
    let files = corpus();
    assert!(files.len() >= 6, "only {} files", files.len());
    for file in files {
        vtd_model(&file);
    }
}

#[test]
fn bent_corpus_files_hold() {
    let files = corpus();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state & 0xffff_ffff).unwrap()
    };
    for round in 0..600 {
        let mut bytes = files[round % files.len()].clone();
        for _ in 0..=random() % 8 {
            let at = random() % bytes.len();
            bytes[at] ^= 1 << (random() % 8);
        }
        vtd_model(&bytes);
    }
}
