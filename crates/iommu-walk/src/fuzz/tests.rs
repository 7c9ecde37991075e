use super::{amdvi_walk, smmuv3_walk, vtd_walk};
use std::vec::Vec;

/// A fuzz function, its corpus, and the least number of files there.
type Target = (fn(&[u8]), &'static str, usize);

const TARGETS: [Target; 3] = [
    (
        vtd_walk,
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/vtd_walk"),
        8,
    ),
    (
        amdvi_walk,
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/amdvi_walk"),
        8,
    ),
    (
        smmuv3_walk,
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/smmuv3_walk"),
        8,
    ),
];

#[test]
fn the_corpus_holds() {
    for (target, folder, least) in TARGETS {
        let mut seen = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            target(&std::fs::read(file.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen >= least, "only {seen} files in {folder}");
    }
}

#[test]
fn cut_and_bent_corpus_files_hold() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (target, folder, _) in TARGETS {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        files.sort();
        for round in 0..4000 {
            let mut bytes = files[round % files.len()].clone();
            for _ in 0..=random() % 6 {
                let at = usize::try_from(random()).unwrap() % bytes.len();
                bytes[at] ^= 1 << (random() % 8);
            }
            if round % 5 == 0 {
                bytes.truncate(usize::try_from(random()).unwrap() % bytes.len());
            }
            target(&bytes);
        }
    }
}
