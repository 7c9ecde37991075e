//! What goes into our own kernels besides the source.

use super::SetupError;
use super::build::{SELFTEST_PROGRAMS, failed};
use crate::cross;
use crate::debian::hex;
use crate::qemu::root::Target;
use crate::tools::{self, Tool};
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
    /// What it is for.
    pub(super) target: Target,
    /// What the kernel is configured with, on top of tinyconfig.
    pub(super) fragment: String,
    /// What is changed in its source, in order.
    pub(super) patches: Vec<Patch>,
}

impl Recipe {
    /// The one of this checkout.
    pub(super) fn read(target: Target) -> Result<Self, SetupError> {
        Self::from(target, Path::new(FOLDER))
    }

    /// `x86_64.config` and the patches in `oracle`, by name; or `arm64.config`, and no patch: the
    /// oracle is of x86-64.
    fn from(target: Target, folder: &Path) -> Result<Self, SetupError> {
        let at = |path: &Path, error: io::Error| failed(format!("{}: {error}", path.display()));
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| at(path, error));
        let (fragment, patched) = match target {
            Target::X86_64 => ("x86_64.config", true),
            Target::Aarch64 => ("arm64.config", false),
        };
        let fragment = read(&folder.join(fragment))?;
        let mut patches = Vec::new();
        if !patched {
            return Ok(Self {
                target,
                fragment,
                patches,
            });
        }
        let oracle = folder.join("oracle");
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
            target,
            fragment,
            patches,
        })
    }

    /// What lines of progress start with.
    pub(super) fn name(&self) -> &'static str {
        match self.target {
            Target::X86_64 => "own kernel",
            Target::Aarch64 => "own kernel for arm64",
        }
    }

    /// The image: what make is told to build, and where it then is.
    pub(super) fn image(&self) -> (&'static str, &'static str) {
        match self.target {
            Target::X86_64 => ("bzImage", "arch/x86/boot/bzImage"),
            Target::Aarch64 => ("Image.gz", "arch/arm64/boot/Image.gz"),
        }
    }

    /// Variables that tell make what it builds for, where it is not this machine.
    pub(super) fn variables(&self) -> &'static [(&'static str, &'static str)] {
        match self.target {
            Target::X86_64 => &[],
            Target::Aarch64 => &[("ARCH", "arm64"), ("CROSS_COMPILE", cross::PREFIX)],
        }
    }

    /// The kernel's own tests that are kept beside the image.
    pub(super) fn selftests(&self) -> &'static [&'static str] {
        match self.target {
            Target::X86_64 => &SELFTEST_PROGRAMS,
            Target::Aarch64 => &[],
        }
    }

    /// What it is built with.
    pub(super) fn needs(&self) -> [&'static [Tool]; 2] {
        let more = match self.target {
            Target::X86_64 => tools::SELFTESTS,
            Target::Aarch64 => tools::ARM64,
        };
        [tools::KERNEL, more]
    }

    /// The hash of all of it, and of what is kept besides the image.
    pub(super) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(&self.fragment);
        hasher.update(self.selftests().join(" "));
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
        let one = Recipe::from(Target::X86_64, folder.path()).unwrap();
        fs::write(oracle.join("1.patch"), "one").unwrap();
        let both = Recipe::from(Target::X86_64, folder.path()).unwrap();
        let names: Vec<_> = both.patches.iter().map(|patch| &*patch.name).collect();
        assert_eq!(names, ["1.patch", "2.patch"]);
        assert_eq!(both.fragment, "CONFIG_PCI=y\n");
        fs::write(oracle.join("1.patch"), "another").unwrap();
        let changed = Recipe::from(Target::X86_64, folder.path()).unwrap();
        assert_ne!(one.hash(), both.hash());
        assert_ne!(both.hash(), changed.hash());
        assert_ne!(both.patched(), changed.patched());
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = |target| {
            let error = Recipe::from(target, folder.path()).unwrap_err();
            error.to_string()
        };
        for (target, missing) in [
            (Target::X86_64, "x86_64.config"),
            (Target::Aarch64, "arm64.config"),
        ] {
            let text = text(target);
            assert!(
                text.contains(&format!("/{missing}: No such file")),
                "{text}"
            );
            fs::write(folder.path().join(missing), "CONFIG_PCI=y\n").unwrap();
        }
        let text = text(Target::X86_64);
        assert!(text.contains("/oracle: No such file"), "{text}");
        let arm64 = Recipe::from(Target::Aarch64, folder.path()).unwrap();
        assert!(arm64.patches.is_empty());
    }

    #[test]
    fn this_checkout_has_a_recipe() {
        let recipe = Recipe::read(Target::X86_64).unwrap();
        assert!(recipe.fragment.contains("\nCONFIG_IOMMUFD_TEST=y\n"));
        assert!(recipe.patched().starts_with(" 0001-oracle.patch "));
        let arm64 = Recipe::read(Target::Aarch64).unwrap();
        assert!(arm64.fragment.contains("\nCONFIG_ARM_SMMU_V3_SVA=y\n"));
        assert_eq!(arm64.patched(), "");
    }
}
