//! The command channel.

use crate::commands;
use crate::reply::Reply;
use std::io::{BufRead, Write};

/// Serves requests until the channel ends.
pub(crate) fn serve(mut from: impl BufRead, mut to: impl Write) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let Some((id, command)) = text.trim().split_once(' ') else {
            continue;
        };
        let status = {
            // One write a line would be one system call a line.
            let mut buffer = std::io::BufWriter::with_capacity(1 << 16, &mut to);
            commands::run(command, &mut Reply::to_request(&mut buffer, id))
        };
        to.write_all(format!("{id} = {status}\n").as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_gets_its_lines_and_one_status() {
        let mut sent = Vec::new();
        serve(
            &b"1 ping\n\nnonsense\n2 no-such 3\n3 ping x\n"[..],
            &mut sent,
        )
        .unwrap();
        let sent = String::from_utf8(sent).unwrap();
        assert_eq!(
            sent,
            "1 | pong\n1 = 0\n\
             2 | error: no command \"no-such\"\n2 = 64\n\
             3 | error: not understood: x (usage: ping)\n3 = 64\n"
        );
    }
}
