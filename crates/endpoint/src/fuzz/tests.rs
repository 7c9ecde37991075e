use super::{config_space, dma_engine, dsa, virtio_rng};
use std::fs;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] = [
    ("config_space", config_space),
    ("dma_engine", dma_engine),
    ("dsa", dsa),
    ("virtio_rng", virtio_rng),
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    files.sort();
    files
}

#[test]
fn the_corpora_hold() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(files.len() >= 2, "{name}: only {} files", files.len());
        for file in files {
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
        for round in 0..400 {
            let mut bytes = files[round % files.len()].clone();
            for _ in 0..=random() % 8 {
                let at = random() % bytes.len();
                bytes[at] ^= 1 << (random() % 8);
            }
            target(&bytes);
        }
    }
}
