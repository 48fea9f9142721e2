//! Files whose names match a pattern.
//!
//! Comes in: a path whose last part may hold `*` and `?`. Goes out: the regular files that match, by name. Guarantees:
//! at most [`FILES_MAX`]; a name that begins with a dot matches only a pattern that does, so that what rsync is still
//! writing is left alone. On failure: a folder that cannot be read.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most files of one section; the journal keeps the marks of the last 10,000 that were read.
pub(super) const FILES_MAX: usize = 4000;

/// A folder, and a pattern of names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    folder: PathBuf,
    name: String,
}

/// A file as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
}

impl Seen {
    pub(super) fn new(path: PathBuf, metadata: &std::fs::Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { path, device: metadata.dev(), inode: metadata.ino(), size: metadata.len(), modified }
    }

    pub(super) const fn key(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

impl Pattern {
    /// Where the files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// `None` unless it is an absolute path with a name, and only the name holds wildcards.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let (folder, name) = text.rsplit_once('/')?;
        let right = text.starts_with('/') && !name.is_empty() && !folder.contains(['*', '?']);
        let folder = PathBuf::from(if folder.is_empty() { "/" } else { folder });
        right.then(|| Self { folder, name: name.to_owned() })
    }

    /// Whether every file that `other` matches is one that this matches too. Where it is not sure, it says no: `a*` and
    /// `*b` may or may not meet.
    pub(super) fn covers(&self, other: &Self) -> bool {
        // A `*` of the other stands for any text: only a `*` matches all of that.
        self.folder == other.folder && matches_all(&self.name, &other.name, |c| c != '*')
    }

    /// Whether the file of this path matches.
    pub(super) fn takes(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        path.parent() == Some(&self.folder) && name.is_some_and(|name| matches(&self.name, name))
    }

    pub(super) fn shown(&self) -> String {
        self.folder.join(&self.name).display().to_string()
    }

    /// The files that match, by name. Files that vanish meanwhile, and names that are no text, are left out.
    pub(super) fn files(&self) -> io::Result<Vec<Seen>> {
        if !self.name.contains(['*', '?']) {
            let path = self.folder.join(&self.name);
            return match std::fs::metadata(&path) {
                Ok(metadata) => {
                    Ok(if metadata.is_file() { vec![Seen::new(path, &metadata)] } else { Vec::new() })
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::read_dir(&self.folder).map(|_| Vec::new())
                }
                Err(error) => Err(error),
            };
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if matches(&self.name, &name) {
                names.push(name);
            }
            if names.len() > FILES_MAX {
                return Err(io::Error::other(format!("more than {FILES_MAX} files match")));
            }
        }
        names.sort_unstable();
        let seen = names.into_iter().filter_map(|name| {
            let path = self.folder.join(name);
            let metadata = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
            Some(Seen::new(path, &metadata))
        });
        Ok(seen.collect())
    }
}

/// `*` is any text, `?` any character. Takes time in proportion to the product of the lengths, never more.
fn matches(pattern: &str, name: &str) -> bool {
    matches_all(pattern, name, |_| true)
}

/// The same for a name of which `?` matches only the characters that `one` says.
fn matches_all(pattern: &str, name: &str, one: impl Fn(char) -> bool) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == name[n] || (*c == '?' && one(name[n])) => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, n) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_in_one_folder() {
        for (pattern, name, want) in [
            ("*.csv", "a.csv", true),
            ("*.csv", ".a.csv", false),
            (".*", ".a.csv", true),
            ("*.csv", "a.csv.1", false),
            ("a?c*", "abc", true),
            ("a?c*", "ac", false),
            ("*a*b*", "xxaxxb", true),
            ("*a*b*", "xxbxxa", false),
            ("data-é?.csv", "data-éé.csv", true),
            ("**", "", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
        assert!(matches("a?", "a*"), "a name may hold a star");
        for (a, b, want) in [
            ("/d/*.csv", "/d/a.csv", true),
            ("/d/a.csv", "/d/*.csv", false),
            ("/d/a*", "/d/ab*c?", true),
            ("/d/a?", "/d/a*", false),
            ("/d/a*", "/d/*b", false),
            ("/d//*", "/d/a", true),
            ("/d/*", "/e/a", false),
            ("/d/*", "/d/.*", false),
        ] {
            let pattern = |text| Pattern::new(text).unwrap();
            assert_eq!(pattern(a).covers(&pattern(b)), want, "{a} {b}");
        }
        for wrong in ["data/*.csv", "/data/*/x.csv", "/data/", ""] {
            assert_eq!(Pattern::new(wrong), None, "{wrong}");
        }
    }
}
