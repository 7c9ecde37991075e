use super::veventq;
use std::fs;

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/veventq");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    files.sort();
    assert!(files.len() >= 4, "only {} files", files.len());
    files
}

#[test]
fn the_corpus_holds() {
    for file in corpus() {
        veventq(&file);
    }
}

#[test]
fn bent_corpus_files_hold() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state & 0xffff_ffff).unwrap()
    };
    let files = corpus();
    for round in 0..2000 {
        let mut bytes = files[round % files.len()].clone();
        for _ in 0..=random() % 8 {
            let at = random() % bytes.len();
            bytes[at] ^= 1 << (random() % 8);
        }
        bytes.truncate(1 + random() % bytes.len());
        veventq(&bytes);
    }
}
