//! Reading a message word by word, in the face of cuts and damage.

/// What became of an attempt to read fixed words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// They stand here, with at most one damaged byte.
    Here,
    /// The text ends within them.
    Cut,
    /// Something else stands here.
    Absent,
}

/// A number as printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Readable, and something that is no digit follows.
    Whole(u64),
    /// Readable, but the text ends with it: there may have been more digits.
    AtEnd(u64),
    /// Damaged, hidden or not there.
    Unreadable,
}

/// A place in a message.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.at = self.text.len().min(self.at.saturating_add(bytes));
    }

    pub(super) fn blanks(&mut self) {
        let blanks = self.rest().iter().take_while(|&&byte| byte == b' ').count();
        self.skip(blanks);
    }

    /// Passes `byte` if it stands here.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let here = self.rest().first() == Some(&byte);
        if here {
            self.skip(1);
        }
        here
    }

    /// Passes `words`; a blank among them stands for any number of blanks. Moves only if they are
    /// [`Words::Here`].
    pub(super) fn words(&mut self, words: &str) -> Words {
        let mut rest = self.rest();
        let mut damaged = 0;
        let mut read = 0;
        for &word in words.as_bytes() {
            if word == b' ' {
                rest = rest.trim_ascii_start();
                continue;
            }
            let Some((&byte, tail)) = rest.split_first() else {
                return if damaged == 0 {
                    Words::Cut
                } else {
                    Words::Absent
                };
            };
            if byte != word {
                damaged += 1;
            }
            // Short words are not sure enough to be read in spite of damage.
            if damaged > usize::from(words.len() >= 8) || (damaged == 1 && read == 0) {
                return Words::Absent;
            }
            read += 1;
            rest = tail;
        }
        self.at = self.text.len() - rest.len();
        Words::Here
    }

    /// Passes a hexadecimal number as the kernel prints it, or the word in its place: one that no
    /// blank stands before, or with leading zeros but no `0x`, is what damage made of another.
    pub(super) fn hex(&mut self) -> Number {
        let apart = self.at == 0 || self.text.get(self.at - 1) == Some(&b' ');
        let damaged = !apart || matches!(self.rest(), [b'0', next, ..] if next.is_ascii_hexdigit());
        let number = self.padded_hex();
        if damaged { Number::Unreadable } else { number }
    }

    /// Passes a hexadecimal number, with or without `0x` and leading zeros, or the word in its place.
    pub(super) fn padded_hex(&mut self) -> Number {
        self.hex_before(b",\"")
    }

    /// The same where a blank or one of `ends` follows.
    pub(super) fn hex_before(&mut self, ends: &[u8]) -> Number {
        let start = self.at;
        if self.rest().starts_with(b"0x") || self.rest().starts_with(b"0X") {
            self.skip(2);
        }
        let digits = self
            .rest()
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let value = self
            .rest()
            .get(..digits)
            .filter(|_| (1..=16).contains(&digits))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.skip(digits);
        match (value, self.rest().first()) {
            (Some(value), None) => Number::AtEnd(value),
            (Some(value), Some(end)) if *end == b' ' || ends.contains(end) => Number::Whole(value),
            _ => {
                self.at = start;
                self.word();
                Number::Unreadable
            }
        }
    }

    /// Passes all up to a blank, a comma or a bracket, and gives it.
    pub(super) fn word(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let len = rest
            .iter()
            .position(|byte| matches!(byte, b' ' | b',' | b'[' | b']'))
            .unwrap_or(rest.len());
        self.skip(len);
        rest.get(..len).unwrap_or_default()
    }
}
