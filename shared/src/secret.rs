//! Secrets that do not stand in the configuration: `${env:NAME}`, `${file:PATH}` and `${credential:NAME}` within a string.
//!
//! Comes in: the text of a setting. Goes out: the text with what these name put in their places, as it is there but for the
//! line's end; `$${` is a `${`, and any other `$` what it is. A credential is a file in the folder that systemd names (`LoadCredential=`).
//! On failure: the problem names the variable or file, never what was in it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Longest secret, in bytes: what is larger is another file than was meant.
const BYTES_MAX: u64 = 65_536;

/// Puts secrets in their places.
///
/// # Errors
/// What is missing, and where it was looked for.
pub fn expand(text: &str) -> Result<Cow<'_, str>, String> {
    expand_with(text, &|source, name| match source {
        Source::Environment => std::env::var(name)
            .map_err(|_| format!("${{env:{name}}}: there is no such variable, or it is not UTF-8")),
        Source::File => read(Path::new(name)),
        Source::Credential => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(folder) => read(&PathBuf::from(folder).join(name)),
            None => Err(format!(
                "${{credential:{name}}}: not started by systemd with a credential; the unit needs \
                 LoadCredential={name}:/path/of/the/file"
            )),
        },
    })
}

/// Whether a text is the name of one secret and nothing else.
pub(crate) fn is_name(text: &str) -> bool {
    let inside = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    inside.is_some_and(|inside| {
        !inside.contains('}') && SOURCES.iter().any(|(word, _)| inside.starts_with(word))
    })
}

/// A source that is named as one, and is none of ours: `${flie:…}`. The way out, without what stands behind it.
#[must_use]
pub fn mistaken(text: &str) -> Option<String> {
    let unescaped = text.replace("$${", "");
    let words = unescaped.split("${").skip(1).filter_map(|inner| inner.split_once('}')?.0.split_once(':'));
    let mut words = words.map(|(word, _)| word);
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic());
    let known = |word: &str| SOURCES.iter().any(|(source, _)| source.trim_end_matches(':') == word);
    let word = words.find(|word| is_word(word) && !known(word))?;
    Some(format!(
        "${{{word}:…}} is no secret: there are ${{env:NAME}}, ${{file:/path}} and ${{credential:NAME}}; write $${{ for a ${{"
    ))
}

/// Where a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Environment,
    File,
    Credential,
}

const SOURCES: [(&str, Source); 3] =
    [("env:", Source::Environment), ("file:", Source::File), ("credential:", Source::Credential)];

fn read(path: &Path) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let about = std::fs::metadata(path).map_err(|e| failed(&e))?;
    let size = about.len();
    // Another kind may keep the reader waiting, or never end.
    if !about.is_file() {
        return Err(failed(&"is no file"));
    }
    if size > BYTES_MAX {
        return Err(failed(&format!("{size} bytes are too many for a secret")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(failed(&"is empty")),
        secret => Ok(secret.to_owned()),
    }
}

fn expand_with<'t>(
    text: &'t str,
    read: &dyn Fn(Source, &str) -> Result<String, String>,
) -> Result<Cow<'t, str>, String> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let named = after.strip_prefix('{').and_then(|inner| {
            let (inside, behind) = inner.split_once('}')?;
            let (name, source) =
                SOURCES.iter().find_map(|(word, source)| Some((inside.strip_prefix(word)?, *source)))?;
            Some((source, name, behind))
        });
        rest = if let Some((source, name, behind)) = named {
            out.push_str(&read(source, name)?);
            behind
        } else if let Some(behind) = after.strip_prefix("${") {
            out.push_str("${");
            behind
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<String, String> {
        let read = |source, name: &str| match name {
            "gone" => Err("gone: not there".to_owned()),
            _ => Ok(format!("<{source:?} {name}>")),
        };
        expand_with(text, &read).map(Cow::into_owned)
    }

    #[test]
    fn what_is_named_stands_in_its_place() {
        assert_eq!(told("mysql://u:${env:PW}@h/d"), Ok("mysql://u:<Environment PW>@h/d".to_owned()));
        assert_eq!(told("${file:/a}${credential:b}"), Ok("<File /a><Credential b>".to_owned()));
        assert_eq!(told("x${file:gone}"), Err("gone: not there".to_owned()));
    }

    #[test]
    fn any_other_dollar_is_what_it_is() {
        for text in ["", "plain", "a$b", "${HOME}", "${file:/a", "cost $", "{env:A}", "pa$$word$$"] {
            assert_eq!(told(text).as_deref(), Ok(text));
        }
        assert_eq!(told("$${env:A}").as_deref(), Ok("${env:A}"));
    }

    #[test]
    fn a_source_that_is_none_is_told_without_what_may_be_secret() {
        let why = mistaken("x${flie:/etc/secret}y").unwrap();
        assert!(why.starts_with("${flie:…} is no secret") && !why.contains("/etc"), "{why}");
        for text in ["${file:/a}${env:B}", "$${flie:x}", "${HOME}", "${a b:c}", "${flie:x", "a:b"] {
            assert_eq!(mistaken(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_lends_its_text_without_the_end_of_its_line() {
        let folder = std::env::temp_dir().join(format!("weir-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("password");
        std::fs::write(&path, "s3cret $x\r\n").unwrap();
        assert_eq!(expand(&format!("${{file:{}}}", path.display())).unwrap(), "s3cret $x");
        std::fs::write(&path, "\n").unwrap();
        assert!(expand(&format!("${{file:{}}}", path.display())).unwrap_err().contains("is empty"));
        assert!(expand("${file:/dev/zero}").unwrap_err().contains("is no file"));
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        let why = expand(&format!("${{file:{}}}", path.display())).unwrap_err();
        assert!(why.contains("password") && why.contains("too many"), "{why}");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(expand("${credential:none}").unwrap_err().contains("LoadCredential=none"));
    }
}
