//! Administrative commands, from the moment they are written to the moment they are done.

use super::{Dsa, State, Worker};
use crate::dsa::command::{Command, Error, Gates, RawCommand, Scope, decode};
use crate::dsa::error::{SoftwareError, code};
use crate::dsa::regs::DeviceState;
use crate::dsa::tables::WqState;

/// A command that is not done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    raw: RawCommand,
    /// Set once it has begun: what it waits for.
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    command: Command,
    scope: Scope,
    /// Descriptors with a smaller number.
    before: u64,
}

impl State {
    /// The PCI controls as the checks see them.
    pub(super) fn gates(&self) -> Gates {
        let (pri, pasid) = (self.config.pri(), self.config.pasid());
        Gates {
            bus_master: self.config.bus_master(),
            ats: self.config.ats().enabled,
            page_requests: pri.enabled,
            allocation: pri.allocation,
            pasid: pasid.enabled,
            privileged: pasid.privileged,
        }
    }

    /// Takes a command; the worker carries it out. Vector 0 may be due instead.
    pub(super) fn take_command(&mut self, raw: RawCommand, vectors: &mut Vec<u16>) {
        if self.command.is_some() {
            let error = SoftwareError::new(code::COMMAND_ACTIVE, None);
            let wanted = self.regs.record(&error);
            vectors.extend((wanted && self.may_interrupt()).then_some(0));
            return;
        }
        self.regs.command_begins();
        self.command = Some(Pending { raw, waiting: None });
    }

    fn move_wqs(&mut self, set: u64, from: WqState, to: WqState) {
        for (n, wq) in self.regs.wqs.iter_mut().enumerate() {
            if set >> n & 1 != 0 && wq.state == from {
                wq.state = to;
            }
        }
    }

    fn all_enabled(&self, set: u64) -> bool {
        let mut wqs = self.regs.wqs.iter().enumerate();
        wqs.all(|(n, wq)| set >> n & 1 == 0 || wq.state == WqState::Enabled)
    }

    /// Begins a command: what it has to wait for, or its end.
    fn begin_command(&mut self, raw: RawCommand) -> Result<(Command, Scope, bool), Option<Error>> {
        let command = decode(raw).map_err(Some)?;
        if self.regs.state == DeviceState::Halted && command != Command::ResetDevice {
            return Err(Some(Error::HALTED));
        }
        let gates = self.gates();
        match command {
            Command::EnableDevice => Err(self.regs.enable_device(&gates)),
            Command::EnableWq(n) => Err(self.regs.enable_wq(n, &gates)),
            Command::DisableDevice | Command::ResetDevice => {
                let reset = command == Command::ResetDevice;
                if self.regs.state == DeviceState::Enabled {
                    self.regs.state = DeviceState::Draining;
                } else if !reset {
                    return Err(Some(Error::ALREADY_DISABLED));
                }
                self.move_wqs(u64::MAX, WqState::Enabled, WqState::Draining);
                Ok((command, Scope::All, reset))
            }
            Command::DisableWqs(set) => {
                if !self.all_enabled(set) {
                    return Err(Some(Error::WQ_NOT_ENABLED));
                }
                self.move_wqs(set, WqState::Enabled, WqState::Draining);
                Ok((command, Scope::Wqs(set), false))
            }
            Command::ResetWqs(set) => {
                self.move_wqs(set, WqState::Enabled, WqState::Draining);
                Ok((command, Scope::Wqs(set), true))
            }
            Command::Wait { scope, abort } => match scope {
                Scope::Wqs(set) if !self.all_enabled(set) => Err(Some(Error::WQ_NOT_ENABLED)),
                _ => Ok((command, scope, abort)),
            },
        }
    }

    /// What a command does once its descriptors are gone.
    fn end_command(&mut self, command: Command) {
        // Whoever gets a work queue next begins with empty portals.
        match command {
            Command::DisableDevice | Command::ResetDevice => self.portals.reset(),
            Command::DisableWqs(set) | Command::ResetWqs(set) => self.portals.forget(set),
            Command::EnableDevice | Command::EnableWq(_) | Command::Wait { .. } => {}
        }
        match command {
            Command::DisableDevice => {
                self.move_wqs(u64::MAX, WqState::Draining, WqState::Disabled);
                self.regs.state = DeviceState::Disabled;
            }
            Command::ResetDevice => self.regs.reset_software(),
            Command::DisableWqs(set) => self.move_wqs(set, WqState::Draining, WqState::Disabled),
            Command::ResetWqs(set) => {
                for (n, wq) in self.regs.wqs.iter_mut().enumerate() {
                    if set >> n & 1 != 0 {
                        wq.reset();
                    }
                }
            }
            Command::EnableDevice | Command::EnableWq(_) | Command::Wait { .. } => {}
        }
    }

    /// A command is over: shows it, and raises vector 0 if that was asked for.
    fn close_command(&mut self, raw: RawCommand, error: Option<Error>, vectors: &mut Vec<u16>) {
        self.command = None;
        let wanted = self.regs.command_ends(raw.interrupt(), error);
        vectors.extend((wanted && self.may_interrupt()).then_some(0));
    }

    /// The device halted under a command.
    pub(super) fn fail_command(&mut self, vectors: &mut Vec<u16>) {
        if let Some(Pending { raw, .. }) = self.command {
            self.close_command(raw, Some(Error::HARDWARE), vectors);
        }
    }
}

impl Dsa {
    /// Carries the command on; true if something changed.
    pub(super) fn command(
        &self,
        state: &mut State,
        worker: &mut Worker,
        vectors: &mut Vec<u16>,
    ) -> bool {
        let Some(Pending { raw, waiting }) = state.command else {
            return false;
        };
        let (begun, waiting) = match waiting {
            Some(waiting) => (false, waiting),
            None => match state.begin_command(raw) {
                Err(error) => {
                    state.close_command(raw, error, vectors);
                    return true;
                }
                Ok((command, scope, abort)) => {
                    if abort {
                        state.queues.abort(scope, &state.regs);
                        worker.engines.abort(scope);
                    }
                    let before = state.queues.sequence();
                    let waiting = Waiting {
                        command,
                        scope,
                        before,
                    };
                    (true, waiting)
                }
            },
        };
        let Waiting {
            command,
            scope,
            before,
        } = waiting;
        let queued = state.queues.hold(scope, before, &state.regs);
        if queued || worker.engines.hold(scope, before) {
            state.command = Some(Pending {
                raw,
                waiting: Some(waiting),
            });
            return begun;
        }
        state.end_command(command);
        state.close_command(raw, None, vectors);
        true
    }
}
