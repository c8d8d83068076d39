//! Files made to harm: whatever lies in a model folder, in a checkpoint or among the records, the program refuses it in
//! words, with an exit code, in bounded memory and time. Each is given to the real program under a limit of addresses.

#[path = "hostile/bench.rs"]
mod bench;
mod common;
#[path = "predict/fixture.rs"]
#[allow(dead_code)] // the tests of predict use the rest
mod fixture;
#[path = "hostile/mutations.rs"]
mod mutations;
#[path = "hostile/numbers.rs"]
mod numbers;
#[path = "hostile/places.rs"]
mod places;
#[path = "hostile/records.rs"]
mod records;
#[path = "hostile/templates.rs"]
mod templates;
#[path = "hostile/tokenizers.rs"]
mod tokenizers;
#[path = "hostile/training.rs"]
mod training;
