use super::*;

fn base() -> Builder {
    Builder::new(Identity::default())
        .bar(0, Bar::memory32(0x4000))
        .express(Port::Endpoint, true)
}

const PASID: PasidCapability = PasidCapability {
    width: 20,
    execute: false,
    privileged: false,
};
const PRI: PriCapability = PriCapability {
    capacity: 64,
    response_needs_pasid: true,
};

fn why(builder: &Builder) -> Impossible {
    builder.build().unwrap_err()
}

#[test]
fn impossible_bars_are_refused() {
    let builder = || Builder::new(Identity::default());
    for (index, bar, refusal) in [
        (6, Bar::memory32(16), Impossible::NoBar(6)),
        (5, Bar::memory64(16), Impossible::NoBar(5)),
        (255, Bar::memory64(16), Impossible::NoBar(255)),
        (0, Bar::memory32(8), Impossible::BarSize { bar: 0, size: 8 }),
        (1, Bar::memory32(0), Impossible::BarSize { bar: 1, size: 0 }),
        (
            0,
            Bar::memory32(24),
            Impossible::BarSize { bar: 0, size: 24 },
        ),
        (
            0,
            Bar::memory32(1 << 32),
            Impossible::BarSize {
                bar: 0,
                size: 1 << 32,
            },
        ),
    ] {
        assert_eq!(why(&builder().bar(index, bar)), refusal);
    }
    let halves = builder()
        .bar(0, Bar::memory64(16))
        .bar(1, Bar::memory32(16));
    assert_eq!(why(&halves), Impossible::BarTaken(1));
    let halves = builder()
        .bar(1, Bar::memory32(16))
        .bar(0, Bar::memory64(16));
    assert_eq!(why(&halves), Impossible::BarTaken(0));
    assert!(builder().bar(4, Bar::memory64(1 << 62)).build().is_ok());
}

#[test]
fn impossible_msix_structures_are_refused() {
    let msix = |vectors, table, pending| {
        base().msix(MsixCapability {
            vectors,
            table,
            pending,
        })
    };
    let place = |bar, offset| Impossible::MsixPlace { bar, offset };
    for (builder, refusal) in [
        (msix(0, (0, 0), (0, 0x1000)), Impossible::Vectors(0)),
        (msix(2049, (0, 0), (0, 0x1000)), Impossible::Vectors(2049)),
        (msix(8, (1, 0), (0, 0x1000)), place(1, 0)),
        (msix(8, (0, 4), (0, 0x1000)), place(0, 4)),
        (msix(8, (0, 0x3f88), (0, 0)), place(0, 0x3f88)),
        (msix(8, (0, 0), (0, 0x4000)), place(0, 0x4000)),
        (msix(8, (0, 0), (0, 0x78)), place(0, 0x78)),
        (msix(8, (0, 0), (9, 0)), place(9, 0)),
    ] {
        assert_eq!(why(&builder), refusal);
    }
    let touching = msix(8, (0, 0), (0, 0x80)).build().unwrap();
    assert_eq!(touching.interrupts().msix, 8);
}

#[test]
fn capabilities_that_need_another_are_refused_without_it() {
    let plain = || Builder::new(Identity::default());
    let ats = AtsCapability::default();
    assert_eq!(why(&plain().ats(ats)), Impossible::NotExpress);
    assert_eq!(why(&plain().pasid(PASID)), Impossible::NotExpress);
    let link = plain().express(Port::Endpoint, false);
    assert_eq!(why(&link.pasid(PASID)), Impossible::NoPrefix);
    assert_eq!(why(&base().pri(PRI)), Impossible::PriWithoutAts);
    let none = PriCapability { capacity: 0, ..PRI };
    assert_eq!(why(&base().ats(ats).pri(none)), Impossible::NoCapacity);
    let wide = PasidCapability { width: 21, ..PASID };
    assert_eq!(why(&base().pasid(wide)), Impossible::PasidWidth(21));
    let deep = AtsCapability {
        queue_depth: 32,
        ..ats
    };
    assert_eq!(why(&base().ats(deep)), Impossible::QueueDepth(32));
    assert!(base().ats(ats).pri(PRI).pasid(PASID).build().is_ok());
}

#[test]
fn what_does_not_fit_is_refused() {
    let long = base().vendor(&[0; 254], &[0; 254]);
    assert_eq!(why(&long), Impossible::Capability(254));
    let uneven = base().vendor(&[0; 4], &[0; 5]);
    assert_eq!(why(&uneven), Impossible::Capability(4));
    let full = base().vendor(&[0; 200], &[0; 200]);
    assert_eq!(why(&full), Impossible::Full(0x148));
    let mut many = base();
    for _ in 0..20 {
        many = many.vendor(&[0; 14], &[0; 14]);
    }
    assert_eq!(why(&many), Impossible::Full(0x10c));
    let class = Builder::new(Identity {
        class: 0x0100_0000,
        ..Identity::default()
    });
    assert_eq!(why(&class), Impossible::Class(0x0100_0000));
}

#[test]
fn a_normal_endpoint_shows_a_link() {
    let space = base().build().unwrap();
    let mut bytes = [0; 60];
    space.read(0x40, &mut bytes);
    // PCI_EXP_TYPE_ENDPOINT 0, version 2; x1 at 2.5 GT/s, in the capability and in the status.
    assert_eq!(bytes[..4], [0x10, 0x00, 0x02, 0x00]);
    assert_eq!(bytes[12..16], [0x11, 0, 0, 0]);
    assert_eq!(bytes[18..20], [0x11, 0]);
}
