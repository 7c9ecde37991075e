use super::{fault_queue, veventq};
use std::fs;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 2] = [("veventq", veventq), ("fault_queue", fault_queue)];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
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
    for (name, target) in TARGETS {
        for file in corpus(name) {
            target(&file);
        }
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
    for (name, target) in TARGETS {
        let files = corpus(name);
        for round in 0..2000 {
            let mut bytes = files[round % files.len()].clone();
            for _ in 0..=random() % 8 {
                let at = random() % bytes.len();
                bytes[at] ^= 1 << (random() % 8);
            }
            bytes.truncate(1 + random() % bytes.len());
            target(&bytes);
        }
    }
}
