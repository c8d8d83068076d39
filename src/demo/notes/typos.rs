//! Slips of the keyboard: two letters swapped, one lost, one doubled. Numbers and short words are left alone.

use super::draws::Draws;

/// Copies `text`, each word of five letters or more misspelt with probability `rate`.
pub(super) fn misspell(text: &str, rate: f64, draws: &mut Draws) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphabetic()) {
        let letters = piece.bytes().take_while(u8::is_ascii_alphabetic).count();
        if letters < 5 || !draws.chance(rate) {
            out.push_str(piece);
            continue;
        }
        // Every byte before `letters` is ASCII, so these are character boundaries.
        let place = 1 + draws.below(letters - 2);
        let (head, tail) = piece.split_at(place);
        let (letter, rest) = tail.split_at(1);
        match draws.below(3) {
            0 => out.extend([head, &rest[..1], letter, &rest[1..]]),
            1 => out.extend([head, rest]),
            _ => out.extend([head, letter, letter, rest]),
        }
    }
    out
}
