//! Code lines a file: the aim is 400, the wall is 600.

use crate::run::{Done, root};
use std::path::{Path, PathBuf};

/// No file has more code lines than this, tests apart.
const WALL: usize = 600;

/// Prints the distribution and the longest files; fails where one is over the wall.
pub(crate) fn report() -> Done {
    eprintln!("==> sizes");
    let mut sizes = Vec::new();
    for folder in ["crates", "guests", "xtask", "fuzz"] {
        collect(&root().join(folder), &mut sizes).map_err(|error| format!("sizes: {error}"))?;
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let at = |share: usize| {
        sizes
            .get(sizes.len() * share / 100)
            .map_or(0, |(lines, _)| *lines)
    };
    let total: usize = sizes.iter().map(|(lines, _)| lines).sum();
    println!(
        "{} files, {total} code lines without tests: median {}, p90 {}, longest {}",
        sizes.len(),
        at(50),
        at(10),
        at(0)
    );
    for (lines, path) in sizes.iter().take(10) {
        println!("{lines:>5} {}", path.display());
    }
    let over: Vec<_> = sizes.iter().filter(|(lines, _)| *lines > WALL).collect();
    if over.is_empty() {
        Ok(())
    } else {
        Err(format!("sizes: over the wall of {WALL}: {over:?}"))
    }
}

fn collect(folder: &Path, into: &mut Vec<(usize, PathBuf)>) -> std::io::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !["target", "tests", "corpus"].contains(&name.as_str()) {
                collect(&path, into)?;
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path)?;
            let short = path.strip_prefix(root()).unwrap_or(&path).to_path_buf();
            into.push((code_lines(&text), short));
        }
    }
    Ok(())
}

/// Lines that are neither blank nor comments, up to an inline test module.
fn code_lines(text: &str) -> usize {
    let mut lines = text.lines().map(str::trim).peekable();
    let mut count = 0;
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]"
            && lines
                .peek()
                .is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
        {
            break;
        }
        if !line.is_empty() && !line.starts_with("//") {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_the_test_module_do_not_count() {
        let text =
            "//! Doc.\n\nfn a() {\n    // why\n}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        assert_eq!(code_lines(text), 2);
    }

    #[test]
    fn no_file_is_over_the_wall() {
        report().unwrap();
    }
}
