//! What follows an event's name in Xen's messages.

use iopf::{Iova, Rid};
use memchr::memmem;

use super::{Key, Reader, number};
use crate::capture::Device;
use crate::log::cursor::Words;
use crate::log::values::device;

impl Reader<'_> {
    /// `: domain = 0, device id = 0x2600, fault address = 0xff…, flags = 0x8`, or
    /// `: 0000:00:14.0 d0 addr 000000fdf8010140 flags 0x8 I`.
    pub(super) fn xen(&mut self) {
        self.cursor.skip(1);
        self.cursor.blanks();
        let old = self.cursor.words("domain = ") == Words::Here;
        let first = self.cursor.word();
        if old {
            self.space = std::str::from_utf8(first)
                .ok()
                .and_then(|text| text.parse().ok());
        } else {
            self.scan.fields.device = device(first);
        }
        self.took();
        if !old {
            // The domain, `d0` or `d[IO]`.
            let rest = self.cursor.rest();
            let near = rest.get(..24).unwrap_or(rest);
            self.cursor.skip(memmem::find(near, b" addr ").unwrap_or(0));
        }
        let keys: &[(&str, Key)] = if old {
            &[
                (" device id = ", Key::Device),
                (" fault address = ", Key::Address),
                (" flags = ", Key::Flags),
            ]
        } else {
            &[(" addr ", Key::Address), (" flags ", Key::Flags)]
        };
        for &(name, key) in keys {
            self.cursor.eat(b',');
            if self.cursor.words(name) != Words::Here {
                continue;
            }
            let value = self.cursor.word();
            let ended = !self.cursor.rest().is_empty();
            self.xen_value(key, value, ended);
            self.took();
        }
        self.scan.wants_reason = false;
    }

    fn xen_value(&mut self, key: Key, value: &[u8], ended: bool) {
        let bare = || {
            let text = std::str::from_utf8(value).ok()?;
            let whole = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            whole.then(|| u64::from_str_radix(text, 16).ok())?
        };
        let number = number(value)
            .filter(|_| ended || key == Key::Flags)
            .or_else(bare);
        match key {
            Key::Device => {
                let rid = number.and_then(|number| u16::try_from(number).ok());
                self.scan.fields.device = rid.map(|rid| Device::Pci {
                    segment: 0,
                    rid: Rid::from_pci(rid),
                });
            }
            Key::Address => self.scan.fields.address = number.map(Iova),
            _ => {
                self.flags = number
                    .filter(|&number| number <= 0xfff)
                    .and_then(|number| u16::try_from(number).ok());
            }
        }
    }
}
