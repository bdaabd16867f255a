//! A short run of the fuzzer: its corpus and 100,000 mutations of it. `cargo +nightly fuzz run
//! frame` finds new inputs.

use std::fs;
use std::path::Path;

use crate::testing::{Random, check_input};

#[test]
fn the_fuzzers_corpus_and_its_mutations_break_no_rule() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frame");
    let mut inputs: Vec<Vec<u8>> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| fs::read(entry.expect("readable").path()).expect("readable"))
        .collect();
    inputs.sort();
    assert!(inputs.len() > 20, "{} inputs", inputs.len());
    for input in &inputs {
        check_input(input);
    }
    let mut random = Random(0xc0ffee);
    for _ in 0..100_000 {
        let mut input = inputs[random.below(inputs.len())].clone();
        for _ in 0..=random.below(4) {
            if !input.is_empty() {
                let place = random.below(input.len());
                input[place] = random.word() as u8;
            }
        }
        input.truncate(3 + random.below(200));
        check_input(&input);
    }
}
