use super::{amdvi_model, smmuv3_model, vtd_model};
use std::fs;

type Model = (&'static str, fn(&[u8]));
const MODELS: [Model; 3] = [
    ("vtd_model", vtd_model),
    ("amdvi_model", amdvi_model),
    ("smmuv3_model", smmuv3_model),
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    files.sort();
    files
}

#[test]
fn the_corpus_holds() {
    for (name, model) in MODELS {
        let files = corpus(name);
        assert!(files.len() >= 6, "only {} files of {name}", files.len());
        for file in files {
            model(&file);
        }
    }
}

#[test]
fn bent_corpus_files_hold() {
    for (name, model) in MODELS {
        let files = corpus(name);
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
            model(&bytes);
        }
    }
}
