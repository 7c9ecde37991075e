//! What goes into our own kernel besides the source.

use super::SetupError;
use super::build::{SELFTEST_PROGRAMS, failed};
use crate::debian::hex;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::path::Path;

/// Where configuration and patches are. They are read when they are needed: the patches are under
/// Linux's licence, and no program of ours is to hold them.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/kernel");

/// A change to the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// Its file's name.
    pub(super) name: String,
    /// What patch(1) takes.
    pub(super) text: String,
}

/// Configuration and patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    /// What the kernel is configured with, on top of tinyconfig.
    pub(super) fragment: String,
    /// What is changed in its source, in order.
    pub(super) patches: Vec<Patch>,
}

impl Recipe {
    /// The one of this checkout.
    pub(super) fn read() -> Result<Self, SetupError> {
        Self::from(Path::new(FOLDER))
    }

    /// `x86_64.config` and the patches in `oracle`, by name.
    fn from(folder: &Path) -> Result<Self, SetupError> {
        let at = |path: &Path, error: io::Error| failed(format!("{}: {error}", path.display()));
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| at(path, error));
        let oracle = folder.join("oracle");
        let mut patches = Vec::new();
        for entry in fs::read_dir(&oracle).map_err(|error| at(&oracle, error))? {
            let path = entry.map_err(|error| at(&oracle, error))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "patch")
            {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                patches.push(Patch {
                    name: name.into_owned(),
                    text: read(&path)?,
                });
            }
        }
        patches.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self {
            fragment: read(&folder.join("x86_64.config"))?,
            patches,
        })
    }

    /// The hash of all of it, and of what is kept besides the image.
    pub(super) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(&self.fragment);
        hasher.update(SELFTEST_PROGRAMS.join(" "));
        hasher.update(self.patched());
        hex(&hasher.finalize())[..12].to_owned()
    }

    /// Names and hashes of the patches: the same for the same changes to the source.
    pub(super) fn patched(&self) -> String {
        let one = |patch: &Patch| {
            let hash = hex(&Sha256::digest(&patch.text));
            format!(" {} {}", patch.name, &hash[..12])
        };
        self.patches.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_come_in_the_order_of_their_names_and_each_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let oracle = folder.path().join("oracle");
        fs::create_dir(&oracle).unwrap();
        fs::write(folder.path().join("x86_64.config"), "CONFIG_PCI=y\n").unwrap();
        fs::write(oracle.join("README.md"), "not a patch").unwrap();
        fs::write(oracle.join("2.patch"), "two").unwrap();
        let one = Recipe::from(folder.path()).unwrap();
        fs::write(oracle.join("1.patch"), "one").unwrap();
        let both = Recipe::from(folder.path()).unwrap();
        let names: Vec<_> = both.patches.iter().map(|patch| &*patch.name).collect();
        assert_eq!(names, ["1.patch", "2.patch"]);
        assert_eq!(both.fragment, "CONFIG_PCI=y\n");
        fs::write(oracle.join("1.patch"), "another").unwrap();
        let changed = Recipe::from(folder.path()).unwrap();
        assert_ne!(one.hash(), both.hash());
        assert_ne!(both.hash(), changed.hash());
        assert_ne!(both.patched(), changed.patched());
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = Recipe::from(folder.path()).unwrap_err().to_string();
        assert!(text.contains("/oracle: No such file"), "{text}");
    }

    #[test]
    fn this_checkout_has_a_recipe() {
        let recipe = Recipe::read().unwrap();
        assert!(recipe.fragment.contains("\nCONFIG_IOMMUFD_TEST=y\n"));
        assert!(recipe.patched().starts_with(" 0001-oracle.patch "));
    }
}
