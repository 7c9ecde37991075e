//! Who may depend on whom: four floors, and nothing climbs.

use crate::run::{Done, root};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::BTreeMap;

/// The four floors. The derived order is the rule: a crate may depend on its own floor or on a
/// lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Floor {
    /// No I/O, no clock, no guest memory, no `unsafe`, no std.
    Pure,
    /// Device models and walkers, still free of the host.
    Model,
    /// File descriptors, threads, clocks.
    Host,
    /// Wiring, arguments, pixels.
    App,
}

impl Floor {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "pure" => Self::Pure,
            "model" => Self::Model,
            "host" => Self::Host,
            "app" => Self::App,
            _ => return None,
        })
    }
}

/// Foreign crates that a pure crate may use. The last three are containers without I/O.
const PURE_MAY_USE: [&str; 6] = [
    "bitfield-struct",
    "bitflags",
    "thiserror",
    "zerocopy",
    "hashbrown",
    "rustc-hash",
];

/// The edges that DESIGN allows between our crates; nothing else, whatever the floors say.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("iopf", &[]),
    ("iommu-wire", &["iopf"]),
    ("iommu-walk", &["iommu-wire", "iopf"]),
    ("viommu-api", &["iopf"]),
    (
        "viommu",
        &["viommu-api", "iommu-walk", "iommu-wire", "iopf"],
    ),
    ("endpoint", &["viommu-api", "iommu-wire", "iopf"]),
    (
        "iopf-scene",
        &["viommu", "iommu-walk", "iommu-wire", "iopf"],
    ),
    ("vfio-user-server", &["viommu-api", "iopf"]),
    ("iopf-host", &["iopf", "iommu-wire"]),
    ("iopf-guest", &["iopf-host", "iopf"]),
    (
        "iopf-rig",
        &["iopf-host", "iopf", "testkit", "viommu", "viommu-api"],
    ),
    ("xtask", &[]),
];

/// Prints the floors; fails where an edge climbs or a pure crate is not pure.
pub(crate) fn report() -> Done {
    eprintln!("==> floors");
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|error| format!("floors: {error}"))?;
    let complaints = complaints(&metadata)?;
    for (name, floor) in floors(&metadata)? {
        println!("{:<6} {name}", format!("{floor:?}").to_lowercase());
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(format!("floors:\n{}", complaints.join("\n")))
    }
}

fn floors(metadata: &Metadata) -> Result<BTreeMap<String, Floor>, String> {
    let members = metadata.workspace_packages();
    members
        .iter()
        .map(|package| Ok((package.name.to_string(), floor_of(package)?)))
        .collect()
}

fn floor_of(package: &Package) -> Result<Floor, String> {
    let word = package.metadata["iopf"]["floor"].as_str().unwrap_or("");
    Floor::parse(word).ok_or_else(|| {
        format!(
            "floors: {}: [package.metadata.iopf] floor = {word:?}; write pure, model, host or app",
            package.name
        )
    })
}

fn complaints(metadata: &Metadata) -> Result<Vec<String>, String> {
    let floors = floors(metadata)?;
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let mut found = Vec::new();
    for package in metadata.workspace_packages() {
        let from = floors[package.name.as_str()];
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development)
        {
            let used = dependency.name.as_str();
            match floors.get(used) {
                Some(&to) if to > from => {
                    found.push(format!(
                        "{} ({from:?}) must not use {used} ({to:?})",
                        package.name
                    ));
                }
                Some(_)
                    if allowed
                        .get(package.name.as_str())
                        .is_some_and(|a| !a.contains(&used)) =>
                {
                    found.push(format!(
                        "{} must not use {used}: DESIGN names its edges",
                        package.name
                    ));
                }
                None if from == Floor::Pure
                    && !dependency.optional
                    && !PURE_MAY_USE.contains(&used) =>
                {
                    found.push(format!("{} is pure and must not use {used}", package.name));
                }
                _ => {}
            }
        }
        if from == Floor::Pure {
            found.extend(impurities(package));
        }
    }
    Ok(found)
}

fn impurities(package: &Package) -> Vec<String> {
    let Some(library) = package.targets.iter().find(|target| target.is_lib()) else {
        return vec![format!("{} is pure and has no library", package.name)];
    };
    let text = std::fs::read_to_string(&library.src_path).unwrap_or_default();
    ["#![no_std]", "#![forbid(unsafe_code)]"]
        .iter()
        .filter(|attribute| !text.lines().any(|line| line.trim() == **attribute))
        .map(|attribute| {
            format!(
                "{} is pure and its {} lacks {attribute}",
                package.name, library.src_path
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_edge_of_the_workspace_climbs() {
        report().unwrap();
    }

    #[test]
    fn the_order_of_floors_is_the_rule() {
        assert!(
            Floor::Pure < Floor::Model && Floor::Model < Floor::Host && Floor::Host < Floor::App
        );
        assert_eq!(Floor::parse("cellar"), None);
    }
}
