//! One test a row of the table of conditions, each expectation typed by hand: the event's number, and what
//! its record says besides: CLASS, S2, `FetchAddr` or IPA.
//!
//! Source: **A** Arm IHI 0070, by section: "Event records" for the events, "Validity of STE" and "Validity
//! of CD" for the checks, "Address sizes of SMMU-originated accesses" for addresses that are too wide.
//! Second authors, named beside a row: **K** Linux `arm-smmu-v3.h` for numbers, **Q** QEMU
//! `hw/arm/smmuv3.c` and `smmu-common.c`.

mod bed;

use bed::smmuv3::*;
use iommu_walk::smmuv3::{
    Applied, Cause, Class, Completion, Detail, Failure, Features, Gate, Second, apply,
    page_request, read_space, response_with_pasid, translate,
};
use iommu_walk::{Stage, Updates};
use iopf::{Access, Dma, DmaKind, Gpa, Pasid, Rid};

fn atomic() -> Dma {
    Dma {
        access: Access::RW,
        ..read()
    }
}

fn stream(stream: u32, dma: Dma) -> Dma {
    Dma {
        requester: Rid(stream),
        ..dma
    }
}

fn substream(number: u32, dma: Dma) -> Dma {
    Dma {
        pasid: Pasid::new(number),
        ..dma
    }
}

// ---- translation is off ----

/// A "SMMU_GBPA": ABORT. No event.
#[test]
fn global_abort() {
    let bed = Bed::first().control(0, 0);
    assert_eq!(bed.passes(&write()).pa, Gpa(ADDR));
    let bed = bed.global_bypass(1 << 20);
    let failure = bed.faults(&write(), Cause::GlobalAbort, 0, PLAIN);
    assert!(!failure.recorded(DmaKind::Untranslated));
}

/// A "Address sizes": no event.
#[test]
fn global_bypass_of_an_address_beyond_oas() {
    let bed = Bed::first().control(0, 0);
    let dma = at(1 << 48, write());
    bed.faults(&dma, Cause::GlobalAddressSize, 0, PLAIN);
}

/// A "F_BAD_ATS_TREQ": SMMUEN == 0.
#[test]
fn event_05_translation_request_while_translation_is_off() {
    let bed = Bed::first().control(0, 0).global_bypass(1 << 20);
    let failure = bed.faults(&ats(), Cause::GlobalTranslationRequest, 0x05, PLAIN);
    assert!(failure.recorded(ats().kind));
    let completion = failure.cause.completion(ats().kind);
    assert_eq!(completion, Completion::UnsupportedRequest);
}

/// A "F_TRANSL_FORBIDDEN": SMMUEN == 0.
#[test]
fn event_07_translated_request_while_translation_is_off() {
    let bed = Bed::first().control(0, 0);
    let failure = bed.faults(&translated(), Cause::GlobalTranslated, 0x07, PLAIN);
    assert!(failure.recorded(DmaKind::Translated));
}

/// A "Handling of addresses in ATS-related transactions": no event.
#[test]
fn translated_request_beyond_oas() {
    let bed = Bed::first();
    let dma = at(1 << 48, translated());
    bed.faults(&dma, Cause::TranslatedAddressSize, 0, PLAIN);
    bed.control(0x3, 0)
        .faults(&dma, Cause::TranslatedAddressSize, 0, PLAIN);
}

// ---- C_BAD_STREAMID and F_STE_FETCH ----

/// A condition 1: StreamID >= 2^LOG2SIZE. Q.
#[test]
fn event_02_stream_outside_the_table() {
    let dma = stream(0x100, read());
    let failure = Bed::first().faults(&dma, Cause::StreamOutsideTable, 0x02, PLAIN);
    assert!(failure.recorded(DmaKind::Untranslated) && failure.entry_addr.is_none());
    // The unit's own width counts, too.
    let narrow = Bed::first().features(|f| f.idr1 = f.idr1 & !0x3f | 5);
    narrow.faults(&read(), Cause::StreamOutsideTable, 0x02, PLAIN);
}

/// A: recorded with CR2.RECINVSID only.
#[test]
fn event_02_is_not_recorded_without_recinvsid() {
    let bed = Bed::first().control(0x13, 0);
    let failure = bed.failure(&stream(0x100, read()));
    assert!(!failure.recorded(DmaKind::Untranslated) && failure.suppressed());
    // The other configuration errors are.
    assert!(
        bed.set(STE, 0)
            .failure(&read())
            .recorded(DmaKind::Untranslated)
    );
}

/// Two levels, split 8: stream 0x128 is entry 0x28 of the table that descriptor 1 points to.
fn two_levels() -> Bed {
    Bed::first()
        .stream_table(0x5000, 0x1_0210)
        .set(0x5008, 0x4009)
}

/// A conditions 2a to 2c: Span of 0, reserved, above SPLIT + 1.
#[test]
fn event_02_level_1_descriptor_without_a_table() {
    let dma = stream(0x128, read());
    two_levels().passes(&dma);
    // 10 is one above the split, 12 and 31 are reserved.
    for span in [0, 10, 12, 31] {
        let bed = two_levels().set(0x5008, 0x4000 | span);
        let failure = bed.faults(&dma, Cause::StreamLevel1Invalid, 0x02, PLAIN);
        assert_eq!((failure.entry, failure.bits), (Some(0x4000 | span), 0x1f));
    }
}

/// A condition 2d: StreamID[SPLIT-1:0] >= 2^(Span-1). (Q reports a C_BAD_STE.)
#[test]
fn event_02_stream_outside_the_span() {
    // 32 entries: 0x20 and above are outside.
    let bed = two_levels().set(0x5008, 0x4006);
    for number in [0x120, 0x128, 0x1ff] {
        let dma = stream(number, read());
        let failure = bed.faults(&dma, Cause::StreamOutsideSpan, 0x02, PLAIN);
        assert_eq!(failure.entry_addr, Some(Gpa(0x5008)));
    }
    let last = bed.failure(&stream(0x11f, read()));
    assert_eq!(last.cause, Cause::StreamInvalid);
}

/// A: the fetch of an L1STD was aborted.
#[test]
fn event_03_level_1_descriptor_unreadable() {
    let bed = two_levels().abort(0x5008);
    let dma = stream(0x128, read());
    bed.faults(&dma, Cause::StreamLevel1Unreadable, 0x03, fetched(0x5008));
}

/// A: the fetch of an STE was aborted. Q.
#[test]
fn event_03_stream_table_entry_unreadable() {
    let bed = Bed::first().abort(STE3);
    let failure = bed.faults(&read(), Cause::StreamUnreadable, 0x03, fetched(STE));
    assert_eq!(failure.entry, None);
}

// ---- C_BAD_STE: one test a check of "Validity of STE" ----

#[track_caller]
fn bad_ste(bed: &Bed, cause: Cause, at: u64) {
    let failure = bed.faults(&read(), cause, 0x04, PLAIN);
    assert_eq!(failure.entry_addr, Some(Gpa(at)));
    assert!(failure.recorded(DmaKind::Untranslated) && failure.bits != 0);
    assert_eq!(failure.cause.gate(), Gate::Always);
}

/// A, Q.
#[test]
fn event_04_entry_not_valid() {
    bad_ste(&Bed::first().take(STE, 1), Cause::StreamInvalid, STE);
}

/// A Config 0xxb: the request is aborted, "no event recorded"; a translation request is answered UR.
#[test]
fn config_of_a_stream_that_aborts() {
    for config in 0..4 {
        let bed = Bed::first().set(STE, 0x3_0001 | config << 1);
        for dma in [read(), ats(), translated()] {
            let failure = bed.faults(&dma, Cause::StreamAborts, 0, PLAIN);
            assert!(!failure.recorded(dma.kind));
        }
        let completion = Cause::StreamAborts.completion(ats().kind);
        assert_eq!(completion, Completion::UnsupportedRequest);
    }
}

/// A: Config 1x1b and IDR0.S1P == 0.
#[test]
fn event_04_stage_1_on_a_unit_without() {
    for bed in [Bed::first(), Bed::nested()] {
        let bed = bed.features(|f| f.idr0 &= !(1 << 1));
        bad_ste(&bed, Cause::StreamFirstMissing, STE);
    }
    Bed::second()
        .features(|f| f.idr0 &= !(1 << 1))
        .passes(&read());
}

/// A: Config 11xb and IDR0.S2P == 0.
#[test]
fn event_04_stage_2_on_a_unit_without() {
    for bed in [Bed::second(), Bed::nested()] {
        let bed = bed.features(|f| f.idr0 &= !1);
        bad_ste(&bed, Cause::StreamSecondMissing, STE);
    }
}

/// A: EATS 10b with NS1ATS, EATS 01b with S2S where stage 2 translates.
#[test]
fn event_04_ats_that_cannot_be() {
    let split = |bed: Bed| bed.set(STE1, 0x2000_0000);
    for bed in [Bed::first(), Bed::second(), Bed::nested()] {
        bad_ste(&split(bed), Cause::StreamAts, STE1);
    }
    let stalls = |bed: Bed| bed.add(STE2, 1 << 57);
    bad_ste(&stalls(Bed::second()), Cause::StreamAts, STE1);
    bad_ste(&stalls(Bed::nested()), Cause::StreamAts, STE1);
    // Not of a stream whose stage 2 does not translate, of one without ATS, or of a unit without.
    stalls(Bed::first()).passes(&read());
    stalls(Bed::second()).set(STE1, 0).passes(&read());
    let without = |bed: Bed| bed.features(|f| f.idr0 &= !(1 << 10));
    without(split(Bed::nested())).passes(&read());
    split(Bed::bypass()).passes(&read());
}

/// A: S1STALLD and STALL_MODEL != 00b.
#[test]
fn event_04_stall_disable_where_stalls_are_not_chosen() {
    let bed = Bed::first().add(STE1, 1 << 27);
    bed.passes(&read());
    for model in [1, 2] {
        let bed = bed.clone().features(|f| f.idr0 |= model << 24);
        bad_ste(&bed, Cause::StreamStallDisable, STE1);
    }
}

/// A: S1CDMax > IDR1.SSIDSIZE; ignored where that is 0.
#[test]
fn event_04_more_context_descriptors_than_substreams() {
    let narrow = |bits: u32| move |f: &mut Features| f.idr1 = f.idr1 & !0x7c0 | bits << 6;
    let bed = Bed::substreams();
    bed.clone().features(narrow(5)).passes(&read());
    bad_ste(
        &bed.clone().features(narrow(4)),
        Cause::StreamContextBits,
        STE,
    );
    bed.features(narrow(0)).passes(&read());
}

/// A: S1Fmt 01b or 10b with substreams and IDR0.CD2L == 0. 11b behaves as 00b.
#[test]
fn event_04_two_levels_of_context_descriptors_on_a_unit_without() {
    let linear = |format: u64| {
        let bed = Bed::substreams().add(STE, format << 4);
        bed.features(|f| f.idr0 &= !(1 << 19))
    };
    for format in [1, 2] {
        bad_ste(&linear(format), Cause::StreamContextFormat, STE);
    }
    linear(3).passes(&read());
    // Without substreams, the field is ignored.
    let one = Bed::first().add(STE, 1 << 4);
    one.features(|f| f.idr0 &= !(1 << 19)).passes(&read());
}

/// A "Address sizes of SMMU-originated accesses", notes 1 and 2.
#[test]
fn event_04_context_pointer_beyond_oas() {
    for bed in [Bed::first(), Bed::nested()] {
        bad_ste(&bed.add(STE, 1 << 48), Cause::StreamContextPointer, STE);
    }
    let small = Bed::first().features(|f| f.idr5 &= !7);
    bad_ste(
        &small.set(STE, 0x1_0000_000b),
        Cause::StreamContextPointer,
        STE,
    );
}

/// A: S2S and STALL_MODEL 01b, no S2S and STALL_MODEL 10b.
#[test]
fn event_04_stage_2_stall_that_cannot_be() {
    let stalls = Bed::second().set(STE1, 0).add(STE2, 1 << 57);
    stalls.passes(&read());
    let never = stalls.clone().features(|f| f.idr0 |= 1 << 24);
    bad_ste(&never, Cause::StreamSecondStall, STE2);
    stalls.features(|f| f.idr0 |= 2 << 24).passes(&read());
    let always = Bed::second().features(|f| f.idr0 |= 2 << 24);
    bad_ste(&always, Cause::StreamSecondStall, STE2);
}

/// A: S2AA64 == 0 and TTF[0] == 0. This unit never has 32-bit tables, even where TTF says so.
#[test]
fn event_04_stage_2_tables_of_another_format() {
    let bed = Bed::second().take(STE2, 1 << 51);
    bad_ste(&bed, Cause::StreamSecondFormat, STE2);
    bad_ste(
        &bed.features(|f| f.idr0 |= 1 << 2),
        Cause::StreamSecondFormat,
        STE2,
    );
    let without = Bed::second().features(|f| f.idr0 &= !(1 << 3));
    bad_ste(&without, Cause::StreamSecondFormat, STE2);
}

/// A: S2HA with HTTU 00b, S2HD with HTTU 00b or 01b.
#[test]
fn event_04_stage_2_updates_on_a_unit_without() {
    let httu = |value: u32| move |f: &mut Features| f.idr0 = f.idr0 & !0xc0 | value << 6;
    let bed = |bits: u64| Bed::second().add(STE2, bits);
    let (access, dirty) = (1 << 56, 1 << 55);
    for (bits, value) in [(access, 0), (dirty, 0), (dirty, 1), (access | dirty, 1)] {
        bad_ste(
            &bed(bits).features(httu(value)),
            Cause::StreamSecondUpdates,
            STE2,
        );
    }
    bed(access).features(httu(1)).passes(&read());
    bed(access | dirty).features(httu(2)).passes(&read());
    // S2HD alone is reserved, and nothing.
    bed(dirty).passes(&read());
}

/// A: S2TG reserved, or not in IDR5.
#[test]
fn event_04_stage_2_granule() {
    let granule = |value: u64| Bed::second().add(STE2, value << 46);
    bad_ste(&granule(3), Cause::StreamSecondGranule, STE2);
    for (value, bit) in [(0, 4), (1, 6), (2, 5)] {
        let bed = granule(value).features(|f| f.idr5 &= !(1 << bit));
        bad_ste(&bed, Cause::StreamSecondGranule, STE2);
    }
}

/// A: S2TTB outside the effective S2PS.
#[test]
fn event_04_stage_2_table_beyond_its_output() {
    bad_ste(
        &Bed::second().set(STE3, 1 << 48),
        Cause::StreamSecondTable,
        STE3,
    );
    // S2PS 40 bits.
    let small = Bed::second().set(STE2, 0x040a_0090_0000_0009);
    small.passes(&read());
    bad_ste(&small.set(STE3, 1 << 40), Cause::StreamSecondTable, STE3);
    // S2PS is no more than OAS.
    let narrow = Bed::second().features(|f| f.idr5 = 0x74);
    bad_ste(&narrow.set(STE3, 1 << 44), Cause::StreamSecondTable, STE3);
}

fn second_sizes(t0sz: u64, sl0: u64) -> Bed {
    Bed::second().set(STE2, 0x040d_0000_0000_0009 | t0sz << 32 | sl0 << 38)
}

/// A "S2T0SZ": 64-IAS to 39, or 48 with STT.
#[test]
fn event_04_stage_2_input_out_of_range() {
    for t0sz in [0, 15, 49, 63] {
        bad_ste(&second_sizes(t0sz, 2), Cause::StreamSecondInput, STE2);
    }
    let narrow = Bed::second().features(|f| f.idr5 = 0x72);
    bad_ste(&narrow, Cause::StreamSecondInput, STE2);
    let large = second_sizes(40, 0).features(|f| f.idr3 &= !(1 << 9));
    bad_ste(&large, Cause::StreamSecondInput, STE2);
    // 64 KiB: 47 at most.
    bad_ste(
        &second_sizes(48, 0).add(STE2, 1 << 46),
        Cause::StreamSecondInput,
        STE2,
    );
}

/// DDI 0487 "Concatenated translation tables": for each granule and start level, the smallest and the
/// largest T0SZ.
#[test]
fn event_04_stage_2_start_level_that_does_not_go_with_its_input() {
    let rows = [
        // Granule 4 KiB: levels 2, 1, 0, 3.
        (0, 0, 30, 42),
        (0, 1, 21, 33),
        (0, 2, 16, 24),
        (0, 3, 39, 48),
        // 64 KiB: levels 3, 2, 1.
        (1, 0, 31, 47),
        (1, 1, 18, 34),
        (1, 2, 16, 21),
        // 16 KiB: levels 3, 2, 1.
        (2, 0, 35, 48),
        (2, 1, 24, 38),
        (2, 2, 16, 27),
    ];
    for (granule, sl0, first, last) in rows {
        let largest = if granule == 1 { 47 } else { 48 };
        for t0sz in 16..=largest {
            let bed = second_sizes(t0sz, sl0).add(STE2, granule << 46);
            let cause = bed.failure(&at(0, read())).cause;
            let inconsistent = cause == Cause::StreamSecondLevel;
            let good = (first..=last).contains(&t0sz);
            assert_eq!(!inconsistent, good, "{granule} {sl0} {t0sz}: {cause:?}");
        }
    }
    for (granule, t0sz) in [(1, 20), (2, 16), (2, 20)] {
        let reserved = second_sizes(t0sz, 3).add(STE2, granule << 46);
        bad_ste(&reserved, Cause::StreamSecondLevel, STE2);
    }
}

/// DDI 0487 "AArch64.S2InvalidSL": level 3 with 4 KiB takes STT; level 0 with 4 KiB and level 1 with 64 KiB
/// take addresses of 44 bits, level 1 with 16 KiB of 42.
#[test]
fn event_04_stage_2_start_level_that_the_unit_does_not_have() {
    let without = second_sizes(39, 3).features(|f| f.idr3 &= !(1 << 9));
    bad_ste(&without, Cause::StreamSecondLevel, STE2);
    for (granule, t0sz, oas) in [(0, 24, 3), (1, 24, 3), (2, 27, 2)] {
        let bed = second_sizes(t0sz, 2).add(STE2, granule << 46);
        let narrow = bed.features(|f| f.idr5 = f.idr5 & !0b111 | oas);
        bad_ste(&narrow, Cause::StreamSecondLevel, STE2);
    }
}

/// "S2TTB": bits 55:52 are of 128-bit descriptors, and treated as zero without.
#[test]
fn stage_2_tables_end_at_bit_51() {
    Bed::second().add(STE3, 0xf << 52).passes(&read());
}

/// A: S2ENDI and TTENDIAN 10b.
#[test]
fn event_04_stage_2_tables_that_are_big_endian() {
    bad_ste(
        &Bed::second().add(STE2, 1 << 52),
        Cause::StreamSecondEndian,
        STE2,
    );
}

/// A "S2VMID": bits 15:8 with VMID16 == 0, in every configuration that translates.
#[test]
fn event_04_vmid_of_16_bits_on_a_unit_with_8() {
    let narrow = |bed: Bed| bed.features(|f| f.idr0 &= !(1 << 18)).add(STE2, 0x100);
    for bed in [Bed::first(), Bed::second(), Bed::nested()] {
        bad_ste(&narrow(bed), Cause::StreamVmid, STE2);
    }
    narrow(Bed::bypass()).passes(&read());
    let without_second = narrow(Bed::first()).features(|f| f.idr0 &= !1);
    without_second.passes(&read());
}

// ---- ATS ----

/// A: the effective EATS is 00b. 11b is, without device permission tables.
#[test]
fn event_05_translation_request_that_is_not_allowed() {
    for eats in [0, 3 << 28] {
        for bed in [Bed::first(), Bed::second(), Bed::nested()] {
            let bed = bed.set(STE1, eats);
            let failure = bed.faults(&ats(), Cause::TranslationRequest, 0x05, PLAIN);
            assert!(failure.recorded(ats().kind));
        }
    }
    // No stage translates: EATS does not count.
    Bed::bypass().faults(&ats(), Cause::TranslationRequest, 0x05, PLAIN);
    let without = Bed::first().features(|f| f.idr0 &= !(1 << 10));
    without.faults(&ats(), Cause::TranslationRequest, 0x05, PLAIN);
}

/// A: ATSCHK == 1 and the effective EATS is 00b.
#[test]
fn event_07_translated_request_that_is_not_allowed() {
    let bed = Bed::first().set(STE1, 0);
    let failure = bed.faults(&translated(), Cause::Translated, 0x07, PLAIN);
    assert!(failure.recorded(DmaKind::Translated));
    Bed::bypass().faults(&translated(), Cause::Translated, 0x07, PLAIN);
    // Without ATSCHK, nobody looks.
    bed.control(0x3, 0).passes(&translated());
}

// ---- C_BAD_SUBSTREAMID and F_STREAM_DISABLED ----

#[track_caller]
fn bad_substream(bed: &Bed, number: u32, cause: Cause) {
    let dma = substream(number, read());
    let failure = bed.faults(&dma, cause, 0x08, PLAIN);
    assert!(failure.recorded(DmaKind::Untranslated));
}

/// A: Config 1x0b.
#[test]
fn event_08_substream_where_stage_1_does_not_translate() {
    for bed in [Bed::bypass(), Bed::second()] {
        bad_substream(&bed, 5, Cause::SubstreamWithoutFirst);
    }
}

/// A: IDR1.SSIDSIZE == 0.
#[test]
fn event_08_substream_on_a_unit_without() {
    let bed = Bed::substreams().features(|f| f.idr1 &= !0x7c0);
    bad_substream(&bed, 5, Cause::SubstreamsMissing);
}

/// A: S1CDMax == 0.
#[test]
fn event_08_substream_of_a_stream_without() {
    bad_substream(&Bed::first(), 0, Cause::SubstreamsDisabled);
}

/// A: SubstreamID >= 2^S1CDMax.
#[test]
fn event_08_substream_outside_the_table() {
    let bed = Bed::substreams().descriptor(CD + 31 * 64);
    bed.passes(&substream(31, read()));
    bad_substream(&bed, 32, Cause::SubstreamOutsideTable);
}

/// A: S1DSS 00b, and 11b, which behaves so.
#[test]
fn event_06_no_substream_where_one_is_needed() {
    for dss in [0, 3] {
        let bed = Bed::substreams().take(STE1, 3).add(STE1, dss);
        bed.faults(&read(), Cause::SubstreamNeeded, 0x06, PLAIN);
        bed.passes(&substream(5, read()));
    }
}

/// A: S1DSS 10b.
#[test]
fn event_06_substream_0_where_it_is_that_of_requests_without() {
    let bed = Bed::substreams();
    let dma = substream(0, read());
    bed.faults(&dma, Cause::SubstreamReserved, 0x06, PLAIN);
    for dss in [0, 1, 3] {
        let other = bed.clone().take(STE1, 3).add(STE1, dss);
        other.passes(&dma);
    }
}

// ---- context descriptors, through stage 2: CLASS == CD ----

/// Where stage 2 maps the context descriptor.
const CD_LEAF2: u64 = 0x1_3180;

#[track_caller]
fn of_context(bed: &Bed, cause: Cause, event: u32) {
    let says = stage2(Class::Context, CD);
    let failure = bed.faults(&read(), cause, event, says);
    assert_eq!(failure.cause.gate(), Gate::Second);
}

/// A F_TRANSLATION, "fetching a CD".
#[test]
fn event_10_context_descriptor_beyond_the_input_of_stage_2() {
    // S2T0SZ 25, S2SL0 level 1: 39 bits.
    let bed = Bed::nested()
        .set(STE2, 0x040d_0059_0000_0009)
        .set(STE3, 0x1_1000);
    bed.passes(&read());
    let bed = bed.set(STE, 0x80_0003_000f);
    let says = stage2(Class::Context, 0x80_0003_0000);
    bed.faults(&read(), Cause::ContextIpaOutside, 0x10, says);
}

/// A F_WALK_EABT, "translation of an IPA for CD fetch": S2, CLASS CD, the address of the stage 2 entry.
#[test]
fn event_0b_stage_2_entry_unreadable_on_the_way_to_a_context_descriptor() {
    let bed = Bed::nested().abort(CD_LEAF2);
    let says = stage2(Class::Context, CD_LEAF2);
    bed.faults(&read(), Cause::ContextIpaUnreadable, 0x0b, says);
}

#[test]
fn event_10_stage_2_entry_not_valid_on_the_way_to_a_context_descriptor() {
    for word in [0, 0x3_04fe, 0x3_04fd] {
        let bed = Bed::nested().set(CD_LEAF2, word);
        of_context(&bed, Cause::ContextIpaInvalid, 0x10);
    }
}

#[test]
fn event_11_stage_2_entry_too_wide_on_the_way_to_a_context_descriptor() {
    let bed = Bed::nested().features(|f| f.idr5 = 0x74);
    // S2T0SZ 20 for 44 bits.
    let bed = bed.set(STE2, 0x040d_0094_0000_0009).add(CD_LEAF2, 1 << 44);
    of_context(&bed, Cause::ContextIpaOutputSize, 0x11);
}

#[test]
fn event_12_access_flag_of_a_context_descriptors_page() {
    let bed = Bed::nested().take(CD_LEAF2, 0x400);
    of_context(&bed, Cause::ContextIpaAccessFlag, 0x12);
    // S2AFFD; S2HA.
    bed.clone().add(STE2, 1 << 53).passes(&read());
    let updates = bed.add(STE2, 1 << 56).updates(&read());
    assert_eq!(updates, [(CD_LEAF2, 0x3_00ff, 0x3_04ff)]);
}

#[test]
fn event_13_context_descriptor_that_may_not_be_read() {
    let bed = Bed::nested().take(CD_LEAF2, 0x40);
    of_context(&bed, Cause::ContextIpaDenied, 0x13);
    // Entries that point to tables grant nothing, and are not to blame.
    assert_eq!(bed.failure(&read()).entry_addr, Some(Gpa(CD_LEAF2)));
}

/// A "S2PTW".
#[test]
fn event_13_context_descriptor_in_device_memory() {
    // MemAttr 0001b, Device-nGnRE.
    let bed = Bed::nested().take(CD_LEAF2, 0x38);
    bed.passes(&read());
    of_context(&bed.add(STE2, 1 << 54), Cause::ContextIpaDevice, 0x13);
}

/// 32 substreams through two levels with leaves of 4 KiB: the level 1 table at 0x3_2000.
fn levels(bed: Bed) -> Bed {
    bed.set(STE, 0x3_201b | 7 << 59)
        .set(STE1, 0x1000_0002)
        .set(0x3_2000, 0x3_0001)
        .set(0x3_2008, 0x3_3001)
        .descriptor(CD + 5 * 64)
        .descriptor(0x3_3000 + 5 * 64)
}

/// A F_CD_FETCH: an L1CD.
#[test]
fn event_09_level_1_context_descriptor_unreadable() {
    let bed = levels(Bed::first());
    bed.passes(&substream(69, read()));
    let dma = substream(5, read());
    bed.abort(0x3_2000).faults(
        &dma,
        Cause::ContextLevel1Unreadable,
        0x09,
        fetched(0x3_2000),
    );
}

/// A C_BAD_SUBSTREAMID: L1CD.V == 0.
#[test]
fn event_08_level_1_context_descriptor_not_valid() {
    let bed = levels(Bed::first()).take(0x3_2000, 1);
    bad_substream(&bed, 5, Cause::ContextLevel1Invalid);
}

/// A "Address sizes of SMMU-originated accesses", notes 3 and 4.
#[test]
fn event_08_level_1_context_descriptor_beyond_oas() {
    let bed = levels(Bed::first()).add(0x3_2000, 1 << 48);
    bad_substream(&bed, 5, Cause::ContextLevel1Pointer);
}

/// A F_CD_FETCH: FetchAddr is a physical address, also where stage 2 translates.
#[test]
fn event_09_context_descriptor_unreadable() {
    Bed::first()
        .abort(CD)
        .faults(&read(), Cause::ContextUnreadable, 0x09, fetched(CD));
    let moved = Bed::nested().set(CD_LEAF2, 0x9_04ff).descriptor(0x9_0000);
    moved.passes(&read());
    let failure =
        moved
            .abort(0x9_0000)
            .faults(&read(), Cause::ContextUnreadable, 0x09, fetched(0x9_0000));
    assert_eq!(failure.guest_addr, Some(Gpa(CD)));
}

// ---- C_BAD_CD: one test a check of "Validity of CD" ----

#[track_caller]
fn bad_cd(bed: &Bed, cause: Cause, at: u64) {
    let failure = bed.faults(&read(), cause, 0x0a, PLAIN);
    assert_eq!(failure.entry_addr, Some(Gpa(at)));
    assert!(failure.recorded(DmaKind::Untranslated) && failure.bits != 0);
    assert_eq!(failure.cause.gate(), Gate::Always);
}

/// A, Q.
#[test]
fn event_0a_descriptor_not_valid() {
    bad_cd(&Bed::first().take(CD, 1 << 31), Cause::ContextInvalid, CD);
}

/// A: S with S1STALLD, S and STALL_MODEL 01b, no S and STALL_MODEL 10b.
#[test]
fn event_0a_stall_that_cannot_be() {
    let stalls = Bed::first().add(CD, 1 << 44);
    stalls.passes(&read());
    bad_cd(&stalls.clone().add(STE1, 1 << 27), Cause::ContextStall, CD);
    let never = stalls.clone().features(|f| f.idr0 |= 1 << 24);
    bad_cd(&never, Cause::ContextStall, CD);
    stalls.features(|f| f.idr0 |= 2 << 24).passes(&read());
    let always = Bed::first().features(|f| f.idr0 |= 2 << 24);
    bad_cd(&always, Cause::ContextStall, CD);
}

/// A: A == 0 and TERM_MODEL == 1.
#[test]
fn event_0a_no_abort_on_a_unit_that_always_does() {
    let bed = Bed::first().take(CD, 1 << 46);
    bed.passes(&read());
    let bed = bed.features(|f| f.idr0 |= 1 << 26);
    bad_cd(&bed, Cause::ContextAbort, CD);
}

/// A: ENDI and TTENDIAN 10b, unless neither range is translated.
#[test]
fn event_0a_tables_that_are_big_endian() {
    let bed = Bed::first().add(CD, 1 << 15);
    bad_cd(&bed, Cause::ContextEndian, CD);
    let neither = bed.add(CD, 1 << 14);
    neither.faults(&read(), Cause::FirstDisabled, 0x10, INPUT);
}

/// A: AA64 == 0 and TTF[0] == 0. This unit never has 32-bit tables, even where TTF says so.
#[test]
fn event_0a_tables_of_another_format() {
    let bed = Bed::first().take(CD, 1 << 41);
    bad_cd(&bed, Cause::ContextFormat, CD);
    bad_cd(
        &bed.features(|f| f.idr0 |= 1 << 2),
        Cause::ContextFormat,
        CD,
    );
}

/// A: HA with HTTU 00b, HD with HTTU 00b or 01b.
#[test]
fn event_0a_updates_on_a_unit_without() {
    let httu = |value: u32| move |f: &mut Features| f.idr0 = f.idr0 & !0xc0 | value << 6;
    let bed = |bits: u64| Bed::first().add(CD, bits);
    let (access, dirty) = (1 << 43, 1 << 42);
    for (bits, value) in [(access, 0), (dirty, 0), (dirty, 1), (access | dirty, 1)] {
        bad_cd(&bed(bits).features(httu(value)), Cause::ContextUpdates, CD);
    }
    bed(access).features(httu(1)).passes(&read());
    bed(access | dirty).features(httu(2)).passes(&read());
    bed(dirty).passes(&read());
}

/// A: bits 15:8 with ASID16 == 0.
#[test]
fn event_0a_asid_of_16_bits_on_a_unit_with_8() {
    let bed = Bed::first().add(CD, 1 << 56);
    bed.passes(&read());
    bad_cd(
        &bed.features(|f| f.idr0 &= !(1 << 12)),
        Cause::ContextAsid,
        CD,
    );
}

/// The upper range in place of the lower: EPD0, T1SZ 16, TG1 4 KiB, TTB1.
fn upper() -> Bed {
    Bed::first()
        .set(CD, 0x0007_6205_8090_4000)
        .set(CD1, 0)
        .set(CD2, 0x2_0000)
}

/// A "T0SZ": 16 to 39, or to 48 with STT, 47 with 64 KiB. That of a range that is not translated does not
/// count.
#[test]
fn event_0a_range_out_of_bounds() {
    let lower = |size: u64| Bed::first().set(CD, CD_WORD0 & !0x3f | size);
    for size in [0, 15, 49, 63] {
        bad_cd(&lower(size), Cause::ContextInputSize, CD);
        let upper = upper().set(CD, 0x0007_6205_8080_4000 | size << 16);
        bad_cd(&upper, Cause::ContextInputSize, CD);
    }
    let small = lower(40).features(|f| f.idr3 &= !(1 << 9));
    bad_cd(&small, Cause::ContextInputSize, CD);
    bad_cd(&lower(48).add(CD, 1 << 6), Cause::ContextInputSize, CD);
    // T1SZ 0 of the bed's descriptor is as bad, but EPD1 is set.
    Bed::first().passes(&read());
}

/// A: TG0 and TG1 reserved, or not in IDR5.
#[test]
fn event_0a_granule() {
    let lower = |value: u64| Bed::first().add(CD, value << 6);
    let higher = |value: u64| upper().set(CD, 0x0007_6205_8010_4000 | value << 22);
    bad_cd(&lower(3), Cause::ContextGranule, CD);
    bad_cd(&higher(0), Cause::ContextGranule, CD);
    for (bed, bit) in [
        (lower(0), 4),
        (lower(1), 6),
        (lower(2), 5),
        (higher(1), 5),
        (higher(2), 4),
        (higher(3), 6),
    ] {
        let bed = bed.features(|f| f.idr5 &= !(1 << bit));
        bad_cd(&bed, Cause::ContextGranule, CD);
    }
}

/// A: TTB0 and TTB1 outside the effective IPS.
#[test]
fn event_0a_table_beyond_the_output_of_stage_1() {
    bad_cd(&Bed::first().set(CD1, 1 << 48), Cause::ContextTable, CD1);
    bad_cd(&upper().set(CD2, 1 << 48), Cause::ContextTable, CD2);
    // IPS 40 bits; IPS is no more than OAS.
    let small = Bed::first().set(CD, CD_WORD0 & !(7 << 32) | 2 << 32);
    bad_cd(&small.set(CD1, 1 << 40), Cause::ContextTable, CD1);
    let narrow = Bed::first().features(|f| f.idr5 = 0x74);
    bad_cd(&narrow.set(CD1, 1 << 44), Cause::ContextTable, CD1);
    // That of a range that is not translated does not count.
    Bed::first().set(CD2, 1 << 48).passes(&read());
}

// ---- stage 1 ----

/// A "Address sizes": stage 1 is bypassed, and the address is beyond IAS. Nothing gates it.
#[test]
fn event_11_address_too_wide_where_stage_1_does_not_translate() {
    let dma = at(1 << 48, read());
    let skipped = Bed::substreams().take(STE1, 3).add(STE1, 1);
    for bed in [Bed::bypass(), Bed::second(), skipped] {
        let failure = bed
            .take(STE2, 1 << 58)
            .faults(&dma, Cause::InputSize, 0x11, INPUT);
        assert!(failure.recorded(DmaKind::Untranslated));
    }
}

#[track_caller]
fn of_input(bed: &Bed, dma: &Dma, cause: Cause, event: u32) {
    let failure = bed.faults(dma, cause, event, INPUT);
    assert_eq!(failure.cause.gate(), Gate::First);
}

/// A F_TRANSLATION: the range check. Q.
#[test]
fn event_10_address_in_neither_range() {
    let bed = Bed::first();
    for addr in [1 << 48, 1 << 56, 0x7f << 48] {
        of_input(&bed, &at(addr, read()), Cause::FirstOutside, 0x10);
    }
    for addr in [0xfffe_0000_0000_0000, 0xff80_0000_0000_0000] {
        of_input(&upper(), &at(addr, read()), Cause::FirstOutside, 0x10);
    }
}

/// A "EPDx behavior".
#[test]
fn event_10_range_that_is_not_translated() {
    let high = at(!0 << 39 | ADDR, read());
    of_input(&Bed::first(), &high, Cause::FirstDisabled, 0x10);
    of_input(&upper(), &read(), Cause::FirstDisabled, 0x10);
    // Even with a table where it would be.
    of_input(
        &Bed::first().add(CD, 1 << 14),
        &read(),
        Cause::FirstDisabled,
        0x10,
    );
}

/// A "E0PD0": reported as a Translation fault.
#[test]
fn event_10_range_that_is_not_for_unprivileged_requests() {
    let bed = Bed::substreams().add(CD + 5 * 64 + 8, 1 << 2);
    let dma = substream(5, read());
    of_input(&bed, &dma, Cause::FirstUserDisabled, 0x10);
    bed.passes(&privileged(dma));
    bed.features(|f| f.idr3 &= !(1 << 13)).passes(&dma);
}

/// A F_WALK_EABT: "stage 1-only table walk" and "nested": S2 == 0, CLASS == TT, the entry's physical
/// address.
#[test]
fn event_0b_stage_1_entry_unreadable() {
    let says = |at| Says(Some(Class::Table), false, Some(at));
    for entry in [0x2_0008, 0x2_1008, 0x2_2008, LEAF] {
        for bed in [Bed::first(), Bed::nested()] {
            let bed = bed.abort(entry);
            let failure = bed.faults(&read(), Cause::FirstUnreadable, 0x0b, says(entry));
            assert_eq!(failure.cause.gate(), Gate::Always);
            assert_eq!(failure.entry, None);
        }
    }
}

/// DDI 0487 "Determination of descriptor type": bit 0 clear, a page without bit 1, a block where none can
/// be.
#[test]
fn event_10_stage_1_entry_not_valid() {
    for entry in [0x2_0008, 0x2_1008, 0x2_2008, LEAF] {
        let bed = Bed::first().take(entry, 1);
        of_input(&bed, &read(), Cause::FirstInvalid, 0x10);
    }
    // At levels 1 (pages) and 4.
    for entry in [LEAF, 0x2_0008] {
        let bed = Bed::first().take(entry, 2);
        of_input(&bed, &read(), Cause::FirstInvalid, 0x10);
    }
    let nested = Bed::nested().take(LEAF, 1);
    let failure = nested.faults(&read(), Cause::FirstInvalid, 0x10, INPUT);
    assert_eq!((failure.level, failure.stage), (1, Some(Stage::First)));
}

/// A F_ADDR_SIZE: an address beyond the effective IPS, of a table or of a page.
#[test]
fn event_11_stage_1_entry_too_wide() {
    for entry in [0x2_0008, 0x2_1008, 0x2_2008, LEAF] {
        let bed = Bed::first()
            .set(CD, CD_WORD0 & !(7 << 32) | 2 << 32)
            .add(entry, 1 << 40);
        of_input(&bed, &read(), Cause::FirstOutputSize, 0x11);
    }
    // An entry that is not valid is that first.
    let both = Bed::first()
        .set(CD, CD_WORD0 & !(7 << 32) | 2 << 32)
        .set(LEAF, 0x100_0008_0441);
    of_input(&both, &read(), Cause::FirstInvalid, 0x10);
}

/// A F_ACCESS: before the rights are weighed. Q.
#[test]
fn event_12_stage_1_access_flag() {
    let bed = Bed::first().set(LEAF, 0x8_00c3);
    of_input(&bed, &write(), Cause::FirstAccessFlag, 0x12);
    // AFFD; then the right counts.
    let ignored = bed.add(CD, 1 << 35);
    ignored.passes(&read());
    of_input(&ignored, &write(), Cause::FirstWriteDenied, 0x13);
    let nested = Bed::nested().take(LEAF, 0x400);
    of_input(&nested, &read(), Cause::FirstAccessFlag, 0x12);
}

/// DDI 0487 "Data access permissions for a stage 1 translation supporting two Exception levels", `APTable`.
#[test]
fn event_13_unprivileged_request_to_what_is_privileged() {
    let page = Bed::first().take(LEAF, 0x40);
    of_input(&page, &read(), Cause::FirstUserDenied, 0x13);
    of_input(&page, &write(), Cause::FirstUserDenied, 0x13);
    // APTable[0]; the entry to blame is that table's.
    let table = Bed::first().add(0x2_1008, 1 << 61);
    let failure = table.faults(&read(), Cause::FirstUserDenied, 0x13, INPUT);
    assert_eq!(failure.entry_addr, Some(Gpa(0x2_1008)));
    assert_eq!((failure.level, failure.bits), (3, 1 << 61));
}

/// A "PAN": a privileged request to data of unprivileged ones.
#[test]
fn event_13_privileged_request_to_what_is_unprivileged() {
    let bed = Bed::substreams().add(CD + 5 * 64, 1 << 40);
    let dma = substream(5, privileged(read()));
    of_input(&bed, &dma, Cause::FirstPrivilegedDenied, 0x13);
    bed.passes(&substream(5, read()));
    bed.take(LEAF, 0x40).passes(&dma);
}

/// DDI 0487: `AP[2]`, `APTable[1]`. Q.
#[test]
fn event_13_write_to_what_is_read_only() {
    let page = Bed::first().add(LEAF, 0x80);
    page.passes(&read());
    for dma in [write(), atomic()] {
        of_input(&page, &dma, Cause::FirstWriteDenied, 0x13);
    }
    let table = Bed::first().add(0x2_0008, 1 << 62);
    table.passes(&read());
    let failure = table.faults(&write(), Cause::FirstWriteDenied, 0x13, INPUT);
    assert_eq!(failure.entry_addr, Some(Gpa(0x2_0008)));
}

/// DDI 0487: UXN, PXN, `UXNTable`, `PXNTable`.
#[test]
fn event_13_instructions_where_there_are_none() {
    let execute = substream(5, fetch());
    let bed = || Bed::substreams().add(LEAF, 0x80);
    bed().passes(&execute);
    bed().passes(&privileged(execute));
    for (user, entry, bit) in [
        (true, LEAF, 54),
        (false, LEAF, 53),
        (true, 0x2_2008, 60),
        (false, 0x2_2008, 59),
    ] {
        let bed = bed().add(entry, 1 << bit);
        let (denied, let_in) = if user {
            (execute, privileged(execute))
        } else {
            (privileged(execute), execute)
        };
        let failure = bed.faults(&denied, Cause::FirstExecuteDenied, 0x13, INPUT);
        assert_eq!(
            (failure.entry_addr, failure.bits),
            (Some(Gpa(entry)), 1 << bit)
        );
        bed.passes(&let_in);
    }
}

/// A F_WALK_EABT: "fetching (or updating)".
#[test]
fn event_0b_stage_1_update_failed() {
    let bed = Bed::first().add(CD, 1 << 43).take(LEAF, 0x400);
    let failure = update_failure(&bed, &read());
    assert_eq!(failure.cause, Cause::FirstUpdateFailed);
    assert_eq!(failure.cause.reason().0, 0x0b);
    assert_eq!(failure.second_address(), Some(Gpa(LEAF)));
    assert_eq!((failure.entry, failure.bits), (Some(0x8_0043), 0x400));
}

// ---- stage 2, of a stage 1 table: CLASS == TT ----

/// Where stage 2 maps the lowest stage 1 table, and the address under way.
const TABLE_LEAF2: u64 = 0x1_3118;

#[track_caller]
fn of_table(bed: &Bed, cause: Cause, event: u32) {
    let says = stage2(Class::Table, LEAF);
    let failure = bed.faults(&read(), cause, event, says);
    assert_eq!(failure.cause.gate(), Gate::Second);
    assert!(failure.cause.table_read());
}

#[test]
fn event_10_stage_1_table_beyond_the_input_of_stage_2() {
    // S2T0SZ 25, S2SL0 level 1: 39 bits.
    let bed = Bed::nested()
        .set(STE2, 0x040d_0059_0000_0009)
        .set(STE3, 0x1_1000)
        .set(0x2_1008, 0x80_0002_2003);
    let says = stage2(Class::Table, 0x80_0002_2008);
    bed.faults(&read(), Cause::TableIpaOutside, 0x10, says);
}

#[test]
fn event_0b_stage_2_entry_unreadable_on_the_way_to_a_stage_1_table() {
    let bed = Bed::nested().abort(TABLE_LEAF2);
    let says = stage2(Class::Table, TABLE_LEAF2);
    bed.faults(&read(), Cause::TableIpaUnreadable, 0x0b, says);
}

#[test]
fn event_10_stage_2_entry_not_valid_on_the_way_to_a_stage_1_table() {
    let bed = Bed::nested().set(TABLE_LEAF2, 0);
    of_table(&bed, Cause::TableIpaInvalid, 0x10);
}

#[test]
fn event_11_stage_2_entry_too_wide_on_the_way_to_a_stage_1_table() {
    // S2PS 40 bits.
    let bed = Bed::nested()
        .set(STE2, 0x040a_0090_0000_0009)
        .add(TABLE_LEAF2, 1 << 40);
    of_table(&bed, Cause::TableIpaOutputSize, 0x11);
}

#[test]
fn event_12_access_flag_of_a_stage_1_tables_page() {
    let bed = Bed::nested().take(TABLE_LEAF2, 0x400);
    of_table(&bed, Cause::TableIpaAccessFlag, 0x12);
}

#[test]
fn event_13_stage_1_table_that_may_not_be_read() {
    let bed = Bed::nested().take(TABLE_LEAF2, 0x40);
    of_table(&bed, Cause::TableIpaReadDenied, 0x13);
    assert_eq!(bed.failure(&read()).entry_addr, Some(Gpa(TABLE_LEAF2)));
}

/// A F_PERMISSION, `TTRnW`: "HTTU updates a stage 1 Access flag".
#[test]
fn event_13_stage_1_entry_that_may_not_be_written() {
    let bed = Bed::nested()
        .add(CD, 1 << 43)
        .take(LEAF, 0x400)
        .take(TABLE_LEAF2, 0x80);
    let says = stage2(Class::Table, LEAF);
    let failure = bed.faults(&read(), Cause::TableIpaWriteDenied, 0x13, says);
    assert!(!failure.cause.table_read());
}

/// A "S2PTW".
#[test]
fn event_13_stage_1_table_in_device_memory() {
    let bed = Bed::nested().take(TABLE_LEAF2, 0x38);
    bed.passes(&read());
    of_table(&bed.add(STE2, 1 << 54), Cause::TableIpaDevice, 0x13);
    // The page itself may be there.
    Bed::nested()
        .take(0x1_3400, 0x38)
        .add(STE2, 1 << 54)
        .passes(&read());
}

// ---- stage 2, of the request's own address: CLASS == IN ----

/// Stage 2 alone, and where it maps the page of a nested walk.
const PAGE_LEAF2: u64 = 0x1_3400;

#[track_caller]
fn of_ipa(change: impl Fn(Bed, u64) -> Bed, dma: &Dma, cause: Cause, event: u32) {
    for (bed, leaf, ipa) in [
        (Bed::second(), LEAF2, ADDR),
        (Bed::nested(), PAGE_LEAF2, 0x8_0abc),
    ] {
        let says = stage2(Class::Input, ipa);
        let failure = change(bed, leaf).faults(dma, cause, event, says);
        assert_eq!(failure.cause.gate(), Gate::Second);
        assert_eq!(failure.stage, Some(Stage::Second));
    }
}

#[test]
fn event_10_address_beyond_the_input_of_stage_2() {
    // S2T0SZ 25, S2SL0 level 1: 39 bits; the address has 40.
    let bed = second_sizes(25, 1);
    let says = stage2(Class::Input, ADDR);
    bed.faults(&read(), Cause::IpaOutside, 0x10, says);
    // And the output of stage 1.
    let bed = Bed::nested()
        .set(STE2, 0x040d_0059_0000_0009)
        .set(STE3, 0x1_1000)
        .set(LEAF, 0x80_0008_0443);
    let says = stage2(Class::Input, 0x80_0008_0abc);
    bed.faults(&read(), Cause::IpaOutside, 0x10, says);
}

#[test]
fn event_0b_stage_2_entry_unreadable() {
    for (bed, leaf) in [(Bed::second(), LEAF2), (Bed::nested(), PAGE_LEAF2)] {
        let says = stage2(Class::Input, leaf);
        let failure = bed
            .abort(leaf)
            .faults(&read(), Cause::IpaUnreadable, 0x0b, says);
        assert_eq!(failure.cause.gate(), Gate::Always);
    }
}

/// As of stage 1; Q.
#[test]
fn event_10_stage_2_entry_not_valid() {
    of_ipa(
        |bed, leaf| bed.take(leaf, 1),
        &read(),
        Cause::IpaInvalid,
        0x10,
    );
    of_ipa(
        |bed, leaf| bed.take(leaf, 2),
        &read(),
        Cause::IpaInvalid,
        0x10,
    );
    let bed = Bed::second().take(0x1_0008, 2);
    let says = stage2(Class::Input, ADDR);
    bed.faults(&read(), Cause::IpaInvalid, 0x10, says);
}

/// A F_ADDR_SIZE: beyond the effective S2PS.
#[test]
fn event_11_stage_2_entry_too_wide() {
    let change = |bed: Bed, leaf| bed.set(STE2, 0x040a_0090_0000_0009).add(leaf, 1 << 40);
    of_ipa(change, &read(), Cause::IpaOutputSize, 0x11);
}

#[test]
fn event_12_stage_2_access_flag() {
    let change = |bed: Bed, leaf| bed.take(leaf, 0x400 | 0x80);
    of_ipa(change, &write(), Cause::IpaAccessFlag, 0x12);
    // S2AFFD; then the right counts.
    let change = |bed: Bed, leaf| bed.take(leaf, 0x400 | 0x80).add(STE2, 1 << 53);
    of_ipa(change, &write(), Cause::IpaWriteDenied, 0x13);
}

/// DDI 0487 "Data access permissions for a stage 2 translation".
#[test]
fn event_13_read_that_stage_2_does_not_grant() {
    let change = |bed: Bed, leaf| bed.take(leaf, 0x40);
    for dma in [read(), atomic()] {
        of_ipa(change, &dma, Cause::IpaReadDenied, 0x13);
    }
    // Write-only is a right.
    change(Bed::second(), LEAF2).passes(&write());
}

#[test]
fn event_13_write_that_stage_2_does_not_grant() {
    let change = |bed: Bed, leaf| bed.take(leaf, 0x80);
    for dma in [write(), atomic()] {
        of_ipa(change, &dma, Cause::IpaWriteDenied, 0x13);
    }
    change(Bed::second(), LEAF2).passes(&read());
}

/// DDI 0487 "Stage 2 instruction access permissions, `FEAT_XNX`": 01b is for unprivileged, 11b for privileged
/// requests. Without a substream, INSTCFG makes a read one of instructions, and PRIVCFG it privileged.
#[test]
fn event_13_instructions_that_stage_2_does_not_grant() {
    let instructions = 3 << 50;
    let privilege = 3 << 48;
    for (never, user, supervisor) in [
        (0, true, true),
        (1, true, false),
        (2, false, false),
        (3, false, true),
    ] {
        let bed = || {
            Bed::second()
                .add(STE1, instructions)
                .add(LEAF2, never << 53)
        };
        for (bed, granted) in [(bed(), user), (bed().add(STE1, privilege), supervisor)] {
            if granted {
                bed.passes(&read());
            } else {
                let says = stage2(Class::Input, ADDR);
                bed.faults(&read(), Cause::IpaExecuteDenied, 0x13, says);
            }
        }
        // Without XNX, bit 54 is all there is.
        let plain = bed().features(|f| f.idr3 &= !(1 << 4));
        assert_eq!(plain.run(&read()).0.is_ok(), never & 2 == 0);
    }
}

#[test]
fn event_0b_stage_2_update_failed() {
    let bed = Bed::second().add(STE2, 1 << 56).take(LEAF2, 0x400);
    let failure = update_failure(&bed, &read());
    assert_eq!(failure.cause, Cause::IpaUpdateFailed);
    assert_eq!(failure.second_address(), Some(Gpa(LEAF2)));
}

/// The failure to write what a walk asked for, in memory that cannot be written.
#[track_caller]
fn update_failure(bed: &Bed, dma: &Dma) -> Failure {
    let mut updates = Updates::new();
    translate(&bed.unit, &bed.mem, dma, &mut updates, &mut ()).expect("the walk itself succeeds");
    let space = read_space(&bed.unit, &bed.mem, dma, &mut Updates::new(), &mut ())
        .expect("the configuration is good");
    let detail = space.detail(dma.access, dma.pasid);
    match apply(&updates, &ReadOnly(&bed.mem), detail) {
        Applied::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

// ---- page requests ----

/// A "PRI queue", "Miscellaneous": PRIQEN == 0, which SMMUEN == 0 implies. No table is read.
#[test]
fn page_requests_are_refused_while_their_queue_is_off() {
    let refused = |bed: Bed| page_request(&bed.unit).expect_err("it was let in");
    for bed in [Bed::first().control(0x11, 2), Bed::first().control(0x12, 2)] {
        let failure = refused(bed);
        assert_eq!(failure.cause, Cause::PageRequestsDisabled);
        assert_eq!(failure.cause.reason().0, 0);
    }
    assert_eq!(page_request(&Bed::first().set(STE, 0).unit), Ok(()));
}

/// A "PRI queue overflow": PPAR, and *Response Failure* where it cannot be read.
#[test]
fn the_answer_to_a_lost_page_request_carries_a_pasid_with_ppar() {
    let asks = |bed: &Bed| response_with_pasid(&bed.unit, &bed.mem, Rid(0x28), &mut ());
    assert_eq!(asks(&Bed::first()), Ok(false));
    assert_eq!(asks(&Bed::first().add(STE1, 1 << 18)), Ok(true));
    assert!(asks(&Bed::first().set(STE, 0)).is_err());
}

// ---- the table as a whole ----

/// K `EVT_ID_*`, for the numbers it has.
#[test]
fn numbers_agree_with_linux() {
    let linux = [
        ("C_BAD_STREAMID", 0x02),
        ("F_STE_FETCH", 0x03),
        ("C_BAD_STE", 0x04),
        ("F_STREAM_DISABLED", 0x06),
        ("C_BAD_SUBSTREAMID", 0x08),
        ("C_BAD_CD", 0x0a),
        ("F_TRANSLATION", 0x10),
        ("F_ADDR_SIZE", 0x11),
        ("F_ACCESS", 0x12),
        ("F_PERMISSION", 0x13),
    ];
    for (name, number) in linux {
        let same: Vec<_> = Cause::ALL.iter().filter(|c| c.code() == name).collect();
        assert!(!same.is_empty(), "{name}");
        assert!(same.iter().all(|c| c.reason().0 == number), "{name}");
    }
}

#[test]
fn every_condition_is_confirmed_or_listed() {
    let names = |confirmed: bool| {
        let some: Vec<String> = Cause::ALL
            .iter()
            .filter(|cause| cause.confirmed() == confirmed)
            .map(|cause| format!("{cause:?}"))
            .collect();
        some
    };
    let (confirmed, unconfirmed) = (names(true), names(false));
    println!("confirmed:   {} conditions, {confirmed:?}", confirmed.len());
    println!(
        "UNCONFIRMED: {} conditions, {unconfirmed:?}",
        unconfirmed.len()
    );
    assert_eq!((confirmed.len(), unconfirmed.len()), (87, 1));
    let mut codes: Vec<u32> = Cause::ALL.iter().map(|cause| cause.reason().0).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(
        codes,
        [0, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0x10, 0x11, 0x12, 0x13]
    );
}

/// A "Responses to ATS Translation Requests".
#[test]
fn a_translation_request_is_answered_by_the_event_it_would_have_been() {
    let kind = DmaKind::Translation { no_write: false };
    for cause in Cause::ALL {
        let wanted = match cause.reason().0 {
            0 | 0x05 => Completion::UnsupportedRequest,
            0x10..=0x13 => Completion::NoAccess,
            _ => Completion::CompleterAbort,
        };
        assert_eq!(cause.completion(kind), wanted, "{cause:?}");
        assert_eq!(cause.recorded(kind), cause.reason().0 == 0x05, "{cause:?}");
        let translated = cause.recorded(DmaKind::Translated);
        assert_eq!(translated, cause.reason().0 == 0x07, "{cause:?}");
    }
}

/// A: which events have CLASS and S2, and which address.
#[test]
fn what_a_record_has_goes_by_its_event() {
    for cause in Cause::ALL {
        let event = cause.reason().0;
        let translation = matches!(event, 0x0b | 0x10..=0x13);
        assert_eq!(cause.class().is_some(), translation, "{cause:?}");
        assert_eq!(cause.translation_related(), event >= 0x10, "{cause:?}");
        let second = match event {
            0x03 | 0x09 | 0x0b => Second::Fetch,
            _ if cause.second_stage() => Second::Intermediate,
            _ => Second::Nothing,
        };
        assert_eq!(cause.second_address(), second, "{cause:?}");
        let input = matches!(event, 0x05 | 0x07 | 0x0b | 0x10..=0x13);
        assert_eq!(cause.has_input_address(), input, "{cause:?}");
        assert!(cause.gate() == Gate::Always || event >= 0x10, "{cause:?}");
    }
}

// ---- R, S and A ----

/// A "Fault configuration (A, R, S bits)": the eight combinations of the context descriptor.
#[test]
fn stage_1_faults_go_by_the_context_descriptor() {
    for bits in 0..8_u64 {
        let (stall, record, abort) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        let bed = Bed::first()
            .set(CD, CD_WORD0 & !(7 << 44) | bits << 44)
            .set(LEAF, 0);
        let failure = bed.failure(&read());
        let kind = DmaKind::Untranslated;
        assert_eq!(failure.recorded(kind), record || stall);
        assert_eq!(failure.stalls(kind), stall);
        assert_eq!(failure.ignored(kind), !stall && !abort);
        // A translation request never stalls, and is never ignored.
        let failure = bed.failure(&ats());
        assert!(!failure.stalls(ats().kind) && !failure.ignored(ats().kind));
        assert!(!failure.recorded(ats().kind));
        // Another error is recorded, and aborts.
        let other = bed.abort(LEAF).failure(&read());
        assert_eq!(other.detail, Detail::empty());
        assert!(other.recorded(kind));
    }
}

/// The same: stage 2 always aborts.
#[test]
fn stage_2_faults_go_by_the_stream_table_entry() {
    for bits in 0..4_u64 {
        let (stall, record) = (bits & 1 != 0, bits & 2 != 0);
        for (bed, leaf) in [
            (Bed::second(), LEAF2),
            (Bed::nested(), PAGE_LEAF2),
            (Bed::nested(), TABLE_LEAF2),
            (Bed::nested(), CD_LEAF2),
        ] {
            // The context descriptor says the opposite.
            let bed = bed
                .set(STE1, 0)
                .take(STE2, 3 << 57)
                .add(STE2, bits << 57)
                .set(CD, CD_WORD0 & !(7 << 44) | !bits << 44 & 3 << 44)
                .set(leaf, 0);
            let failure = bed.failure(&read());
            let kind = DmaKind::Untranslated;
            assert!(failure.cause.second_stage());
            assert_eq!(failure.recorded(kind), record || stall);
            assert_eq!(failure.stalls(kind), stall);
            assert!(!failure.ignored(kind));
        }
    }
}

/// A "Event records": `PnU` and `InD` are those after the stream table entry's override, MEV is there.
#[test]
fn a_record_says_what_the_request_counts_as() {
    let of = |bed: Bed, dma: &Dma| bed.set(LEAF, 0).failure(dma).detail;
    let (privileged_one, instruction) = (Detail::PRIVILEGED, Detail::INSTRUCTION);
    assert_eq!(of(Bed::first(), &read()), Detail::empty());
    // Without a substream, there are neither.
    let without = Dma {
        pasid: None,
        ..privileged(fetch())
    };
    assert_eq!(of(Bed::first(), &without), Detail::empty());
    let full = substream(5, privileged(fetch()));
    let bed = Bed::substreams;
    assert_eq!(of(bed(), &full), privileged_one | instruction);
    assert_eq!(of(bed().add(STE1, 2 << 48), &full), instruction);
    assert_eq!(of(bed().add(STE1, 2 << 50), &full), privileged_one);
    let forced = 3 << 48 | 3 << 50;
    assert_eq!(
        of(bed().add(STE1, forced), &read()),
        privileged_one | instruction
    );
    // A write is of data.
    assert_eq!(of(bed().add(STE1, forced), &write()), privileged_one);
    // A unit that does not override.
    let plain = bed().features(|f| f.idr1 &= !(1 << 26));
    assert_eq!(of(plain.add(STE1, forced), &read()), Detail::empty());
    assert_eq!(of(Bed::first().add(STE1, 1 << 19), &read()), Detail::MERGE);
}
