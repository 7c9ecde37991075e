//! Files of the guest, above all those of sysfs and debugfs.

use super::Command;
use crate::args::Args;
use crate::reply::{Context as _, Done, Reply};
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "cat",
        usage: "cat PATH [LENGTH]",
        run: cat,
    },
    Command {
        name: "write",
        usage: "write PATH TEXT",
        run: write,
    },
    Command {
        name: "ls",
        usage: "ls PATH",
        run: ls,
    },
    Command {
        name: "mkdir",
        usage: "mkdir PATH",
        run: |mut args, _| {
            let path = args.word("PATH")?;
            args.end()?;
            fs::create_dir_all(path).context(path)
        },
    },
];

fn cat(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let path = args.word("PATH")?;
    let most = args
        .next()
        .map_or(Ok(u64::MAX), |word| crate::args::number("LENGTH", word))?;
    args.end()?;
    let mut text = Vec::new();
    let file = fs::File::open(path).context(path)?;
    file.take(most).read_to_end(&mut text).context(path)?;
    out.lines(&String::from_utf8_lossy(&text));
    Ok(())
}

/// One write of the text with a newline behind it, to a file that is made where there is none.
fn write(mut args: Args<'_>, _: &mut Reply<'_>) -> Done {
    let path = args.word("PATH")?;
    let text = format!("{}\n", args.rest());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.context(path)
}

fn ls(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    let mut names = Vec::new();
    for entry in fs::read_dir(path).context(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        out.line(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::said;

    #[test]
    fn what_is_written_is_read_and_listed() {
        let dir = std::env::temp_dir().join(format!("iopf-guest-files-{}", std::process::id()));
        let at = dir.display();
        assert_eq!(said(&format!("mkdir {at}/a")), (0, String::new()));
        assert_eq!(said(&format!("write {at}/b one  two")), (0, String::new()));
        assert_eq!(said(&format!("cat {at}/b")), (0, "one  two\n".into()));
        assert_eq!(said(&format!("ls {at}")), (0, "a\nb\n".into()));
        std::fs::remove_dir_all(&dir).unwrap();
        // ENOENT.
        assert_eq!(said(&format!("cat {at}/b")).0, 2);
    }
}
