//! The embedded model's tokenizer: byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2), digits one by one.
//!
//! A digit keeps the space before it, so that a lone space token stands nowhere but where a prompt ends in one.

use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel as ByteLevelDecoder,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainerBuilder},
    },
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    tokenizer::normalizer::SplitDelimiterBehavior,
};

use crate::error::{Error, Result};

/// Ids, control tokens included.
pub const VOCAB_SIZE: usize = 2048;
/// One digit, letters, or other signs, each with its space; line breaks and runs of spaces.
const WORDS: &str = r" ?\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Ids 0, 1, 2, as `tokenizer_config.json` names them.
const CONTROLS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Learns a `tokenizer.json` from texts; the same texts in the same order give the same bytes.
pub fn train(texts: &[String]) -> Result<Vec<u8>> {
    let failed = |e: tokenizers::Error| Error::run(format!("the tokenizer cannot be trained: {e}"));
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split =
        Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    let words: [PreTokenizerWrapper; 2] = [split.into(), ByteLevel::new(false, true, false).into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(words.to_vec())));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    let controls = CONTROLS.map(|token| AddedToken::from(token, true));
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(VOCAB_SIZE)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(controls.to_vec())
        .build();
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts.iter().map(String::as_str)).map_err(failed)?;
    tokenizer.to_string(false).map(String::into_bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_repeats_itself_and_reads_back_what_it_wrote() {
        let texts: Vec<String> =
            (0..200).map(|i| format!("Patient {i} walked, then walked again: albumin 2.{i}\n\n")).collect();
        let bytes = train(&texts).unwrap();
        assert_eq!(bytes, train(&texts).unwrap());
        let tokenizer = Tokenizer::from_bytes(&bytes).unwrap();
        for text in ["walked again", "Žluťoučký kůň 2.19", " \n\t"] {
            let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
        assert_eq!(CONTROLS.map(|token| tokenizer.token_to_id(token)), [Some(0), Some(1), Some(2)]);
        assert_eq!(tokenizer.encode("10", false).unwrap().len(), 2, "a digit is a token");
        assert_eq!(tokenizer.encode(" 2", false).unwrap().len(), 1, "with the space before it");
    }
}
