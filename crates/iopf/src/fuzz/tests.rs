use super::engine_steps;
use std::fs;
use std::path::Path;

#[test]
fn every_script_of_the_corpus_keeps_the_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/engine_steps");
    let mut played = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        engine_steps(&fs::read(entry.unwrap().path()).unwrap());
        played += 1;
    }
    assert!(played >= 12);
}

#[test]
fn a_torn_last_step_is_ignored() {
    engine_steps(&[0, 0, 0]);
    engine_steps(&[]);
}
