//! The words for the reasons of VT-d, as logs have them.

use iommu_wire::vtd::event::{FaultReason, ReasonInfo};

/// The words for `code`: Linux's where it has any (`drivers/iommu/intel/dmar.c`), else ours. `None`
/// for a number without a meaning known to us.
pub(crate) fn reason(code: u32) -> Option<&'static str> {
    FaultReason(u8::try_from(code).ok()?).info().map(words)
}

fn words(info: &ReasonInfo) -> &'static str {
    info.linux.unwrap_or(info.meaning)
}

fn code(info: &ReasonInfo) -> u32 {
    u32::from(info.reason.0)
}

/// The code that Linux or Xen prints `name` for.
pub(super) fn code_of(name: &str) -> Option<u32> {
    FaultReason::all()
        .iter()
        .find(|info| info.linux == Some(name))
        .map(code)
}

/// The longest known name that `text` begins with, blanks compared as one, and its length in `text`.
pub(super) fn at_start(text: &[u8]) -> Option<(&'static str, usize)> {
    FaultReason::all()
        .iter()
        .filter_map(|info| info.linux)
        .filter(|name| name.as_bytes().first() == text.first())
        .filter_map(|name| same_words(text, name).map(|len| (name, len)))
        .max_by_key(|&(name, _)| name.len())
}

/// Whether `text` could be the beginning of a name that Linux prints, for `wanted` if it is known.
pub(super) fn may_continue(text: &[u8], wanted: Option<u32>) -> bool {
    FaultReason::all()
        .iter()
        .filter(|info| wanted.is_none_or(|wanted| wanted == code(info)))
        .filter_map(|info| info.linux)
        .any(|name| begins(text, name))
}

/// How much of `text` the words of `name` take, where `text` begins with them.
fn same_words(text: &[u8], name: &str) -> Option<usize> {
    let mut at = 0;
    for (nth, word) in name.split(' ').enumerate() {
        if nth > 0 {
            let blanks = text
                .get(at..)?
                .iter()
                .take_while(|&&byte| byte == b' ')
                .count();
            if blanks == 0 {
                return None;
            }
            at += blanks;
        }
        text.get(at..)?.strip_prefix(word.as_bytes())?;
        at += word.len();
    }
    Some(at)
}

/// Whether `text`, blanks compared as one, is a beginning of `name` and not all of it.
fn begins(text: &[u8], name: &str) -> bool {
    let words = text
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let mut rest = name.as_bytes();
    for word in words {
        let Some(tail) = rest.strip_prefix(word) else {
            return false;
        };
        rest = tail.strip_prefix(b" ").unwrap_or(tail);
    }
    !rest.is_empty()
}
