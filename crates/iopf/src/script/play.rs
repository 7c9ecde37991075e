//! The player and its book-keeper.

mod whole;

use super::{Step, Takes};
use crate::engine::{
    Attachment, By, Delivery, DeviceConfig, DeviceId, DomainId, Engine, GuestId, Handle, Losses,
    Policy, Reported, Tick, Verdict,
};
use crate::{
    Access, Fault, Gpa, GroupIndex, Iova, PageRequest, Pasid, Reason, Response, Unrecoverable,
};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// What the book-keeper knows of something that waits.
#[derive(Clone, Debug)]
struct Owed {
    /// The token of the last page; none for an unrecoverable fault.
    token: Option<u64>,
    pages: u64,
    device: u32,
    since: u64,
    delivered: bool,
}

/// A script in play.
pub(crate) struct Play {
    pub(crate) engine: Engine,
    pub(crate) log: String,
    now: u64,
    strict: bool,
    configs: BTreeMap<u32, DeviceConfig>,
    handles: Vec<Handle>,
    owed: BTreeMap<usize, Owed>,
    /// Tokens of partial pages that were kept and have not come back in a group.
    partial: BTreeSet<u64>,
    /// Tokens whose answers were polled or given at once.
    answered: BTreeSet<u64>,
    reported: u64,
    refused: u64,
    losses_told: Losses,
    lost: u64,
    vanished: u64,
    /// Per device: the undelivered handles in order, and for the first of them how many of each
    /// other device went before it since it was first.
    queues: BTreeMap<u32, VecDeque<usize>>,
    passed: BTreeMap<u32, BTreeMap<u32, u32>>,
}

/// Plays a script and returns its transcript.
#[cfg(test)]
pub(crate) fn play(policy: Policy, steps: &[Step]) -> String {
    let mut play = Play::new(policy);
    for (token, step) in steps.iter().enumerate() {
        play.step(token as u64, *step);
    }
    play.log
}

fn show(pasid: Option<Pasid>) -> String {
    let mut text = String::new();
    match pasid {
        Some(pasid) => write!(text, "p{}", pasid.get()),
        None => write!(text, "-"),
    }
    .expect("a string takes everything");
    text
}

impl Play {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            engine: Engine::new(policy),
            log: String::new(),
            now: 0,
            strict: policy != Policy::linux() && policy != Policy::linux().with_max_pages(2),
            configs: BTreeMap::new(),
            handles: Vec::new(),
            owed: BTreeMap::new(),
            partial: BTreeSet::new(),
            answered: BTreeSet::new(),
            reported: 0,
            refused: 0,
            losses_told: Losses::default(),
            lost: 0,
            vanished: 0,
            queues: BTreeMap::new(),
            passed: BTreeMap::new(),
        }
    }

    fn say(&mut self, line: core::fmt::Arguments<'_>) {
        writeln!(self.log, "@{} {line}", self.now).expect("a string takes everything");
    }

    fn handle(&self, nth: usize) -> Option<(usize, Handle)> {
        // Small numbers name small handles; the fuzzer's large ones wrap.
        let nth = nth % self.handles.len().max(1);
        self.handles.get(nth).map(|handle| (nth, *handle))
    }

    /// Plays one step, fetches what came of it, and checks the promises. Says whether the engine
    /// took it.
    pub(crate) fn step(&mut self, token: u64, step: Step) -> bool {
        let taken = self.act(token, step);
        self.fetch();
        self.check();
        taken
    }

    fn result<T, E: core::fmt::Display>(&mut self, result: Result<T, E>) -> bool {
        if let Err(error) = &result {
            self.say(format_args!("refused: {error}"));
        }
        result.is_ok()
    }

    fn act(&mut self, token: u64, step: Step) -> bool {
        let now = Tick(self.now);
        match step {
            Step::Add(device, credits, share) => {
                let config = DeviceConfig {
                    credits,
                    share,
                    ..DeviceConfig::default()
                };
                self.add(device, config)
            }
            Step::AddNested(device) => {
                let config = DeviceConfig {
                    carries_failure: false,
                    user_pasid_table: true,
                    guest: Some(GuestId(device)),
                    ..DeviceConfig::default()
                };
                self.add(device, config)
            }
            Step::Remove(device) => {
                let result = self.engine.remove_device(now, DeviceId(device));
                if result.is_ok() {
                    self.configs.remove(&device);
                    self.requeue();
                }
                self.result(result)
            }
            Step::Attach(device, pasid, domain, takes) => {
                let attachment = attachment(domain, takes);
                let pasid = pasid.map(Pasid::truncate);
                let result = self.engine.attach(DeviceId(device), pasid, attachment);
                self.result(result)
            }
            Step::Replace(device, pasid, domain, takes) => {
                let attachment = attachment(domain, takes);
                let pasid = pasid.map(Pasid::truncate);
                let result = self
                    .engine
                    .replace(now, DeviceId(device), pasid, attachment);
                self.result(result)
            }
            Step::Detach(device, pasid) => {
                let pasid = pasid.map(Pasid::truncate);
                let result = self.engine.detach(now, DeviceId(device), pasid);
                self.result(result)
            }
            Step::Page(device, pasid, group, addr) => {
                self.page(token, device, pasid, group, addr, false)
            }
            Step::Last(device, pasid, group, addr) => {
                self.page(token, device, pasid, group, addr, true)
            }
            Step::Group(device, pasid, other, pages) => {
                self.whole_group(token, (device, pasid, other, pages), None)
            }
            Step::Resolve(device, pasid, other, pages, decision) => {
                self.whole_group(token, (device, pasid, other, pages), Some(decision))
            }
            Step::Stray(device, pasid) => self.stray(device, pasid),
            Step::Lost(device, faults) => {
                self.lost += faults;
                let result = self.engine.report_lost(Some(DeviceId(device)), faults);
                self.result(result)
            }
            Step::Deliver => self.deliver(),
            Step::Answer(nth, response) => {
                let Some((nth, handle)) = self.handle(nth) else {
                    return false;
                };
                let result = self.engine.answer(now, handle, response);
                self.expect_answer(nth, result.is_ok());
                self.result(result)
            }
            Step::Refuse(nth) => {
                let Some((nth, handle)) = self.handle(nth) else {
                    return false;
                };
                let result = self.engine.refuse(now, handle);
                self.expect_answer(nth, result.is_ok());
                self.result(result)
            }
            Step::Dequeue(nth) => {
                let Some((_, handle)) = self.handle(nth) else {
                    return false;
                };
                let result = self.engine.dequeue(handle);
                self.result(result)
            }
            Step::Judge(nth, verdict) => {
                let Some((nth, handle)) = self.handle(nth) else {
                    return false;
                };
                let result = self.engine.judge(now, handle, verdict);
                if result.is_ok() {
                    let owed = self.owed.remove(&nth).expect("judged once");
                    assert_eq!(owed.token, None, "a group got a verdict");
                    self.vanished += u64::from(verdict == Verdict::Vanished);
                    self.requeue();
                }
                self.result(result)
            }
            Step::DiscardPartial => {
                let pages = self.engine.discard_partial();
                self.say(format_args!("discarded {pages}"));
                true
            }
            Step::Flush(device) => {
                let result = self.engine.flush(DeviceId(device));
                if let Ok(left) = result {
                    self.say(format_args!("{left} to deliver"));
                }
                self.result(result)
            }
            Step::Wait(time) => {
                self.now += time;
                self.engine.handle_timeout(Tick(self.now));
                true
            }
        }
    }

    fn add(&mut self, device: u32, config: DeviceConfig) -> bool {
        let result = self.engine.add_device(DeviceId(device), config);
        if result.is_ok() {
            self.configs.insert(device, config);
        }
        self.result(result)
    }

    fn page(
        &mut self,
        token: u64,
        device: u32,
        pasid: Option<u32>,
        group: u32,
        addr: u64,
        last: bool,
    ) -> bool {
        let page = PageRequest {
            pasid: pasid.map(Pasid::truncate),
            group: GroupIndex(group),
            addr: Iova(addr),
            access: Access::RW,
            last,
            response_needs_pasid: pasid.is_some(),
            private_data: [token, !token],
        };
        self.reported += 1;
        let fault = Fault::PageRequest(page);
        let result = self.engine.report(Tick(self.now), DeviceId(device), &fault);
        match result {
            Ok(Reported::Collected) => {
                assert!(!last, "a last page was only collected");
                self.partial.insert(token);
            }
            Ok(Reported::Queued(handle)) => {
                assert!(last, "a partial page was queued");
                let pages = self.engine.pages(handle).expect("it waits");
                let tokens: Vec<u64> = pages.map(|page| page.private_data[0]).collect();
                for of_page in &tokens {
                    let known = *of_page == token || self.partial.remove(of_page);
                    assert!(known, "page {of_page} is in two groups, or in none");
                }
                self.queued(handle, device, Some(token), tokens.len() as u64);
            }
            Ok(Reported::Answered(answer, why)) => {
                self.refused += 1;
                assert!(last || !self.strict, "a partial page was answered");
                assert_eq!(answer.private_data, [token, !token]);
                assert!(self.answered.insert(token), "answered twice");
                self.say(format_args!(
                    "answer d{device} {} g{} {:?} at once: {why:?}",
                    show(answer.pasid),
                    answer.group.0,
                    answer.response
                ));
            }
            Ok(Reported::Judged(_)) => panic!("a page request got a verdict"),
            Err(_) => {
                assert!(!last, "a last page was refused without an answer");
                self.refused += 1;
            }
        }
        self.result(result)
    }

    fn stray(&mut self, device: u32, pasid: Option<u32>) -> bool {
        let fault = Fault::Unrecoverable(Unrecoverable {
            reason: Reason(0x5a),
            pasid: pasid.map(Pasid::truncate),
            access: Access::WRITE,
            addr: Some(Iova(0x7000)),
            fetch_addr: Some(Gpa(0x8000)),
        });
        self.reported += 1;
        let result = self.engine.report(Tick(self.now), DeviceId(device), &fault);
        match result {
            Ok(Reported::Queued(handle)) => self.queued(handle, device, None, 1),
            Ok(Reported::Judged(verdict)) => self.say(format_args!("judged {verdict:?}")),
            Ok(_) => panic!("an unrecoverable fault was collected or answered"),
            Err(_) => self.refused += 1,
        }
        self.result(result)
    }

    fn queued(&mut self, handle: Handle, device: u32, token: Option<u64>, pages: u64) {
        assert!(!self.handles.contains(&handle), "a handle came back");
        let nth = self.handles.len();
        self.handles.push(handle);
        let owed = Owed {
            token,
            pages,
            device,
            since: self.now,
            delivered: false,
        };
        self.owed.insert(nth, owed);
        self.queues.entry(device).or_default().push_back(nth);
        self.say(format_args!("queued #{nth}"));
    }

    fn deliver(&mut self) -> bool {
        let Some(delivery) = self.engine.poll_fault() else {
            self.say(format_args!("nothing to deliver"));
            return true;
        };
        let handle = match &delivery {
            Delivery::Group(group) => group.handle,
            Delivery::Stray(stray) => stray.handle,
        };
        let nth = self.handles.iter().position(|known| *known == handle);
        let nth = nth.expect("delivered what was never queued");
        let owed = self
            .owed
            .get_mut(&nth)
            .expect("delivered what was answered");
        assert!(
            !core::mem::replace(&mut owed.delivered, true),
            "delivered twice"
        );
        let device = owed.device;
        match delivery {
            Delivery::Group(group) => {
                let pages = self.engine.pages(group.handle).expect("it waits");
                let mut text = String::new();
                for page in pages {
                    write!(text, " {}:{}", show(page.pasid), page.addr)
                        .expect("a string takes everything");
                }
                let (domain, index) = (group.domain.0, group.index.0);
                self.say(format_args!(
                    "deliver #{nth} d{device} dom{domain} g{index}:{text}"
                ));
            }
            Delivery::Stray(stray) => {
                let (domain, reason) = (stray.domain.0, stray.fault.reason.0);
                self.say(format_args!(
                    "deliver #{nth} d{device} dom{domain} stray {} reason {reason:#x}",
                    show(stray.fault.pasid)
                ));
            }
        }
        self.took_a_turn(device);
        self.requeue();
        true
    }

    /// A delivery of `device`: everybody else's first in line has been passed once more.
    fn took_a_turn(&mut self, device: u32) {
        if !self.strict {
            return;
        }
        self.passed.remove(&device);
        let share = self
            .configs
            .get(&device)
            .map_or(1, |c| u32::from(c.share.max(1)));
        for (other, queue) in &self.queues {
            if *other == device || queue.is_empty() {
                continue;
            }
            let passed = self
                .passed
                .entry(*other)
                .or_default()
                .entry(device)
                .or_default();
            *passed += 1;
            assert!(
                *passed <= share,
                "d{device} went {passed} times before d{other}, its share is {share}"
            );
        }
    }

    /// Takes what was delivered or closed out of the queues.
    fn requeue(&mut self) {
        for (device, queue) in &mut self.queues {
            let first = queue.front().copied();
            queue.retain(|nth| self.owed.get(nth).is_some_and(|owed| !owed.delivered));
            if queue.front().copied() != first {
                self.passed.remove(device);
            }
        }
    }

    /// An answer was accepted or not: it must be so exactly while `nth` is owed one.
    fn expect_answer(&mut self, nth: usize, accepted: bool) {
        if accepted {
            let owed = self.owed.get(&nth);
            assert!(
                owed.is_some_and(|owed| owed.token.is_some()),
                "a stale handle, or one of an unrecoverable fault, took an answer"
            );
        }
    }

    fn fetch(&mut self) {
        while let Some(answer) = self.engine.poll_answer() {
            let token = answer.private_data[0];
            let nth = self.owed.iter().find(|(_, owed)| owed.token == Some(token));
            let nth = *nth.expect("an answer nobody asked for").0;
            let owed = self.owed.remove(&nth).expect("just found");
            assert_eq!(answer.device.0, owed.device, "the answer of another device");
            assert!(self.answered.insert(token), "answered twice");
            assert_eq!(answer.since.0, owed.since);
            let note = match answer.by {
                By::Resolver => "",
                By::Deadline => " (late)",
                By::Departure => " (gone)",
                By::Report => panic!("an answer given at once was queued"),
            };
            self.say(format_args!(
                "answer #{nth} d{} {} g{} {:?}{note}",
                answer.device.0,
                show(answer.pasid),
                answer.group.0,
                answer.response
            ));
        }
        while let Some(report) = self.engine.poll_loss() {
            self.losses_told += report.losses;
        }
        while self.engine.poll_log().is_some() {}
        self.requeue();
    }

    /// Unrecoverable faults that the engine gave up on its own leave no trace outside but the
    /// handle: nothing may wait under it.
    fn forget_given_up(&mut self) {
        let (engine, handles) = (&mut self.engine, &self.handles);
        self.owed.retain(|nth, owed| {
            owed.token.is_some()
                || engine.answer(Tick(0), handles[*nth], Response::Success)
                    != Err(crate::engine::AnswerError::Stale)
        });
        self.requeue();
    }

    fn check(&mut self) {
        self.forget_given_up();
        let totals = self.engine.totals();
        let (used, capacity) = self.engine.pages_held();
        assert_eq!(totals.held, used as u64);
        assert_eq!(totals.reported, self.reported);
        assert_eq!(totals.losses.refused, self.refused);
        assert_eq!(totals.losses.lost, self.lost);
        assert_eq!(totals.losses.vanished, self.vanished);
        let waiting: u64 = self.owed.values().map(|owed| owed.pages).sum();
        let open = totals.held - waiting;
        assert_eq!(
            totals.losses.discarded,
            self.partial.len() as u64 - open,
            "every partial page is held, in a group, or discarded"
        );
        assert_eq!(
            totals.reported,
            totals.completed + totals.losses.refused + totals.losses.discarded + totals.held
        );
        assert_eq!(self.losses_told, totals.losses, "every loss is told once");
        if self.strict {
            let credits: u64 = self.configs.values().map(|c| u64::from(c.credits)).sum();
            assert!(totals.held <= credits, "more pages than credits");
            for (device, config) in &self.configs {
                let counts = self.engine.counts(DeviceId(*device)).expect("it is there");
                assert!(counts.held <= u64::from(config.credits));
            }
        }
        assert!(capacity <= used.max(self.partial.len() + self.handles.len()) + 1024);
        self.check_deadlines();
    }

    fn check_deadlines(&self) {
        let Some(timeout) = self.engine.policy().timeout() else {
            return;
        };
        let Some(oldest) = self.owed.values().map(|owed| owed.since).min() else {
            return;
        };
        let due = u128::from(oldest) + timeout.as_nanos();
        let next = self.engine.poll_timeout().expect("something waits");
        assert!(u128::from(next.0) <= due, "the engine would wake up late");
    }

    /// Whether nothing waits any longer than the policy says.
    #[cfg(test)]
    pub(crate) fn everything_due_is_answered(&self) -> bool {
        let timeout = self.engine.policy().timeout().map(|t| t.as_nanos());
        let late = |owed: &Owed| {
            timeout.is_some_and(|timeout| u128::from(self.now - owed.since) >= timeout)
        };
        !self.owed.values().any(late)
    }

    /// Removes every device and checks that then nothing is owed or held.
    pub(crate) fn finish(mut self) -> String {
        let devices: Vec<u32> = self.configs.keys().copied().collect();
        for device in devices {
            self.step(u64::MAX, Step::Remove(device));
        }
        if self.strict {
            assert!(
                self.owed.is_empty(),
                "left without an answer: {:?}",
                self.owed
            );
            assert_eq!(self.engine.pages_held().0, 0);
        }
        self.log
    }
}

fn attachment(domain: u32, takes: Takes) -> Attachment {
    let attachment = Attachment::new(DomainId(domain));
    match takes {
        Takes::Everything => attachment,
        Takes::Nested => Attachment {
            nested: true,
            ..attachment
        },
        Takes::Nothing => Attachment {
            page_requests: false,
            unrecoverable: false,
            ..attachment
        },
    }
}
