//! From a stream and a substream to their configuration.
//!
//! Spec: IHI 0070, "Data structures and translation procedure", "Stream Table Entry" and "Context
//! Descriptor".

mod context;
mod stream;

pub use context::read_context;
pub use stream::read_stream;

use super::space::{Space, Stream, Substream};
use super::{Cause, Detail, Failure, Unit};
use crate::TableMem;
use crate::outcome::Translation;
use crate::trail::{Raw, Recorder, Step, Table, Updates, Verdict};
use iopf::{Access, Dma, DmaKind, Gpa, Rid};

/// An entry of a configuration table, and where it was read.
#[derive(Clone, Copy)]
struct At {
    table: Table,
    index: u32,
    addr: Gpa,
    /// Where it lies as stage 2 sees it.
    guest: Option<Gpa>,
}

impl At {
    #[inline(always)]
    fn record<R: Recorder>(self, recorder: &mut R, words: &[u64], verdict: Verdict) {
        if R::ACTIVE {
            recorder.step(&Step {
                table: self.table,
                level: 0,
                index: self.index,
                addr: self.addr,
                guest_addr: self.guest,
                raw: Raw::new(words),
                verdict,
            });
        }
    }

    /// Ends the walk at an entry that could not be read.
    #[cold]
    fn unreadable<R: Recorder>(self, recorder: &mut R, cause: Cause) -> Failure {
        self.record(recorder, &[], Verdict::Unreadable);
        let mut failure = Failure::with(cause, Detail::empty()).unreadable(self.addr);
        failure.guest_addr = self.guest;
        failure
    }

    /// Ends the walk: bits of a word of the entry decided.
    #[cold]
    fn reject<R: Recorder>(
        self,
        recorder: &mut R,
        words: &[u64],
        Bad { cause, word, bits }: Bad,
    ) -> Failure {
        let absent = matches!(
            cause,
            Cause::StreamInvalid
                | Cause::StreamLevel1Invalid
                | Cause::ContextInvalid
                | Cause::ContextLevel1Invalid
        );
        let verdict = match (absent, cause) {
            (true, _) => Verdict::NotPresent,
            (false, Cause::StreamOutsideSpan) => Verdict::Refused,
            (false, _) => Verdict::Invalid,
        };
        self.record(recorder, words, verdict);
        let value = words.get(usize::from(word)).copied().unwrap_or(0);
        let addr = Gpa(self.addr.0.wrapping_add(8 * u64::from(word)));
        let mut failure = Failure::with(cause, Detail::empty()).at(addr, value, bits);
        failure.guest_addr = self.guest;
        failure
    }
}

/// What is wrong with an entry: bits of one of its words.
#[derive(Clone, Copy)]
struct Bad {
    cause: Cause,
    word: u8,
    bits: u64,
}

const fn bad(cause: Cause, word: u8, bits: u64) -> Bad {
    Bad { cause, word, bits }
}

/// Whether a stream takes requests of this kind.
///
/// # Errors
/// The condition that keeps it out: the stream aborts all, or does not allow ATS.
#[inline(always)]
pub const fn admit(stream: &Stream, kind: DmaKind) -> Result<(), Cause> {
    if stream.config().aborts() {
        return Err(Cause::StreamAborts);
    }
    match kind {
        DmaKind::Untranslated => Ok(()),
        _ if stream.ats() => Ok(()),
        DmaKind::Translation { .. } => Err(Cause::TranslationRequest),
        DmaKind::Translated => Err(Cause::Translated),
    }
}

/// Ends a request with no entry to blame.
#[cold]
pub(super) fn refuse(stream: &Stream, dma: &Dma, cause: Cause) -> Failure {
    Failure::with(cause, super::space::detail(stream, dma.access, dma.pasid))
}

/// Reads what a request's stream and substream are configured to.
///
/// The result depends on nothing but the stream, the substream and whether there is one: see
/// [`read_stream`] and [`read_context`] for its two parts, which can be cached apart. `updates` receives
/// the access flags of stage 2 that reading a context descriptor sets; it is not cleared.
///
/// # Errors
/// [`Failure`] of a condition of the configuration, or of stage 2 on the way to it.
#[inline(always)]
pub fn read_space<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    updates: &mut Updates,
    recorder: &mut R,
) -> Result<Space, Failure> {
    let stream = read_stream(unit, mem, dma.requester, recorder)?;
    if let Err(cause) = admit(&stream, dma.kind) {
        return Err(refuse(&stream, dma, cause));
    }
    let context = match stream.substream(unit, dma.pasid) {
        Ok(Substream::None) => None,
        Ok(Substream::Number(number)) => Some(read_context(
            unit, &stream, mem, dma, number, updates, recorder,
        )?),
        Err(cause) => return Err(refuse(&stream, dma, cause)),
    };
    Ok(Space { stream, context })
}

/// Lets a translated request through. With `ATSCHK`, its stream has to allow it: `stream` is then the one
/// that was read, and what is wrong with it is nobody's business but the device's.
///
/// # Errors
/// [`Failure`] when translation is off, the stream does not allow it, or the address is too wide.
pub fn translated(unit: &Unit, stream: Option<&Stream>, dma: &Dma) -> Result<Translation, Failure> {
    let fail = |cause| Err(Failure::with(cause, Detail::empty()));
    if !unit.enabled() {
        return fail(Cause::GlobalTranslated);
    }
    if let Some(stream) = stream
        && unit.checks_translated()
        && let Err(cause) = admit(stream, DmaKind::Translated)
    {
        return Err(refuse(stream, dma, cause));
    }
    if dma.addr.0 >> unit.output_bits() != 0 {
        return fail(Cause::TranslatedAddressSize);
    }
    Ok(super::stage::identity(unit, dma, Access::RW))
}

/// Checks a page request: whether the unit takes any. No table is read.
///
/// # Errors
/// [`Failure`] when it does not.
pub fn page_request(unit: &Unit) -> Result<(), Failure> {
    if unit.page_requests_enabled() {
        return Ok(());
    }
    Err(Failure::with(Cause::PageRequestsDisabled, Detail::empty()))
}

/// Whether the answer that a unit gives to a page request with a PASID, for which its queue has no room,
/// carries the PASID (PPAR).
///
/// # Errors
/// [`Failure`] of the stream table entry: the answer is then *Response Failure*, without a PASID.
pub fn response_with_pasid<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    requester: Rid,
    recorder: &mut R,
) -> Result<bool, Failure> {
    Ok(read_stream(unit, mem, requester, recorder)?.response_with_pasid())
}
