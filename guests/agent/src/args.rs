//! The words of a command line.

use crate::reply::Failure;

/// What is left of a command line. Words are separated by spaces; there is no quoting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args<'a> {
    rest: &'a str,
}

impl<'a> Args<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text.trim() }
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    /// The next word, which the command cannot do without.
    pub(crate) fn word(&mut self, name: &str) -> Result<&'a str, Failure> {
        self.next()
            .ok_or_else(|| Failure::usage(format!("{name} is missing")))
    }

    /// The next word as a number: decimal, or hexadecimal after `0x`.
    pub(crate) fn number(&mut self, name: &str) -> Result<u64, Failure> {
        number(name, self.word(name)?)
    }

    /// The next word as a number that fits a narrower type.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self, name: &str) -> Result<T, Failure> {
        let value = self.number(name)?;
        T::try_from(value).map_err(|_| Failure::usage(format!("{name} is too large: {value:#x}")))
    }

    /// Everything that is left, as it was written.
    pub(crate) fn rest(self) -> &'a str {
        self.rest
    }

    /// Refuses words that nobody asked for.
    pub(crate) fn end(self) -> Result<(), Failure> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Failure::usage(format!("not understood: {}", self.rest)))
        }
    }
}

/// A number: decimal, or hexadecimal after `0x`.
pub(crate) fn number(name: &str, word: &str) -> Result<u64, Failure> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| Failure::usage(format!("{name} is not a number: {word}")))
}

/// Bytes from hexadecimal digits.
pub(crate) fn bytes(name: &str, word: &str) -> Result<Vec<u8>, Failure> {
    let wrong = || Failure::usage(format!("{name} is not hexadecimal: {word}"));
    if !word.is_ascii() || word.len() % 2 == 1 {
        return Err(wrong());
    }
    (0..word.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&word[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}

/// Hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_the_rest_come_in_order() {
        let mut args = Args::new("  00:04.0 0x1f 12 a  text ");
        assert_eq!(args.word("BDF").unwrap(), "00:04.0");
        assert_eq!(args.number("A").unwrap(), 0x1f);
        assert_eq!(args.small::<u8>("B").unwrap(), 12);
        assert_eq!(args.rest(), "a  text");
        assert_eq!(args.end().unwrap_err().text, "not understood: a  text");
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        let text = |args: &mut Args| args.small::<u8>("COUNT").unwrap_err().text;
        assert_eq!(text(&mut Args::new("")), "COUNT is missing");
        assert_eq!(text(&mut Args::new("0x100")), "COUNT is too large: 0x100");
        assert_eq!(text(&mut Args::new("1z")), "COUNT is not a number: 1z");
    }

    #[test]
    fn hexadecimal_goes_both_ways_and_nonsense_is_refused() {
        assert_eq!(bytes("DATA", "00ff7a").unwrap(), [0, 0xff, 0x7a]);
        assert_eq!(hex(&[0, 0xff, 0x7a]), "00ff7a");
        for wrong in ["0", "0g", "é"] {
            assert!(bytes("DATA", wrong).is_err(), "{wrong}");
        }
    }
}
