//! Migration files: `NNNN_name.up.cypher` and `NNNN_name.down.cypher`.
//!
//! A statement ends with `;` at the end of a line. A line that begins with `//` is a comment, and `// data: true` among those
//! before the first statement says that the file changes data. A statement that creates or drops constraints or indexes is a
//! schema statement and must have `IF NOT EXISTS` or `IF EXISTS`, because a migration that failed half-way is run again.

use std::collections::BTreeMap;
use std::path::Path;

use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use super::MigrateError;

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../schema");

/// Every migration that the program knows, from 0001 on without a gap.
#[derive(Debug, Clone)]
pub struct Migrations(Vec<Migration>);

/// One migration.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Its number.
    pub version: u32,
    /// Its name, as in its files' names.
    pub name: String,
    /// SHA-256 of both files in hexadecimal digits. Line ends do not count.
    pub checksum: String,
    pub(super) up: Script,
    pub(super) down: Script,
}

/// One file's statements.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) data: bool,
    pub(super) steps: Vec<Step>,
}

/// What runs in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Schema(String),
    /// Data statements that follow one another.
    Data(Vec<String>),
}

impl Migration {
    /// The four digits that name it.
    pub fn id(&self) -> String {
        id(self.version)
    }
}

/// The four digits of a version.
pub(super) fn id(version: u32) -> String {
    format!("{version:04}")
}

impl Migrations {
    /// Those in the program itself.
    ///
    /// # Errors
    /// [`MigrateError::File`], which a test of the project rules out.
    pub fn embedded() -> Result<Self, MigrateError> {
        let files = EMBEDDED.files().filter_map(|file| {
            let name = file.path().to_str()?.to_owned();
            Some((name, file.contents_utf8()?.to_owned()))
        });
        Self::new(files)
    }

    /// Those in a directory.
    ///
    /// # Errors
    /// [`MigrateError::Read`] or [`MigrateError::File`].
    pub fn from_dir(directory: &Path) -> Result<Self, MigrateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| MigrateError::Read { path, source }
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
            let path = entry.map_err(failed(directory))?.path();
            if let Some(name) = path.file_name().and_then(|name| name.to_str())
                && name.ends_with(".cypher")
            {
                files.push((name.to_owned(), std::fs::read_to_string(&path).map_err(failed(&path))?));
            }
        }
        Self::new(files)
    }

    fn new(files: impl IntoIterator<Item = (String, String)>) -> Result<Self, MigrateError> {
        let mut pairs: BTreeMap<(u32, String), [Option<String>; 2]> = BTreeMap::new();
        for (file, text) in files.into_iter().filter(|(file, _)| file.ends_with(".cypher")) {
            let refused = |reason: &str| MigrateError::File { file: file.clone(), reason: reason.to_owned() };
            let (version, name, down) = parts(&file).ok_or_else(|| {
                refused("a migration's file is NNNN_name.up.cypher or NNNN_name.down.cypher")
            })?;
            let pair = pairs.entry((version, name)).or_default();
            if let Some(slot) = pair.get_mut(usize::from(down)) {
                *slot = Some(text.replace("\r\n", "\n"));
            }
        }
        let mut migrations = Vec::new();
        for ((version, name), pair) in pairs {
            let file = |which| format!("{}_{name}.{which}.cypher", id(version));
            let absent = |which| MigrateError::File { file: file(which), reason: "it is absent".to_owned() };
            let [up, down] = pair;
            let (up, down) = (up.ok_or_else(|| absent("up"))?, down.ok_or_else(|| absent("down"))?);
            if usize::try_from(version).ok() != Some(migrations.len() + 1) {
                let reason =
                    format!("{} was expected there, and each number once", id(migrations.len() as u32 + 1));
                return Err(MigrateError::File { file: file("up"), reason });
            }
            migrations.push(Migration {
                version,
                checksum: checksum(&up, &down),
                up: script(&file("up"), &up)?,
                down: script(&file("down"), &down)?,
                name,
            });
        }
        Ok(Self(migrations))
    }

    /// In order, the first with version 1.
    pub fn all(&self) -> &[Migration] {
        &self.0
    }

    /// The newest version, or 0 where there is none.
    pub fn newest(&self) -> u32 {
        self.0.last().map_or(0, |migration| migration.version)
    }

    /// The migration with this version.
    pub fn get(&self, version: u32) -> Option<&Migration> {
        self.0.iter().find(|migration| migration.version == version)
    }
}

/// Version, name, and whether it is the file that goes down.
fn parts(file: &str) -> Option<(u32, String, bool)> {
    let stem = file.strip_suffix(".cypher")?;
    let (stem, down) = match stem.strip_suffix(".up") {
        Some(stem) => (stem, false),
        None => (stem.strip_suffix(".down")?, true),
    };
    let (digits, name) = stem.split_once('_')?;
    let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    if digits.len() != 4
        || !digits.bytes().all(|it| it.is_ascii_digit())
        || name.is_empty()
        || !name.chars().all(plain)
    {
        return None;
    }
    Some((digits.parse().ok()?, name.to_owned(), down))
}

/// The separator can't be in either text, so no part of one can count for the other.
fn checksum(up: &str, down: &str) -> String {
    let digest = Sha256::digest(format!("{up}\0{down}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn script(file: &str, text: &str) -> Result<Script, MigrateError> {
    let mut data = false;
    let mut steps: Vec<Step> = Vec::new();
    let mut statement = String::new();
    let refused = |reason: String| MigrateError::File { file: file.to_owned(), reason };
    for line in text.lines() {
        if let Some(comment) = line.trim_start().strip_prefix("//") {
            match comment.trim() {
                "data: true" if steps.is_empty() && statement.trim().is_empty() => data = true,
                comment if comment.starts_with("data:") => {
                    return Err(refused(format!(
                        "`// {comment}` is not understood: `// data: true` comes before the first statement, or not at all"
                    )));
                }
                _ => {}
            }
            continue;
        }
        match line.trim_end().strip_suffix(';') {
            Some(last) => {
                statement.push_str(last);
                add(&mut steps, std::mem::take(&mut statement)).map_err(refused)?;
            }
            None => {
                statement.push_str(line);
                statement.push('\n');
            }
        }
    }
    if !statement.trim().is_empty() {
        return Err(refused("its last statement does not end with `;` at the end of a line".to_owned()));
    }
    if !data && steps.iter().any(|step| matches!(step, Step::Data(_))) {
        return Err(refused("it changes data: say `// data: true` in its first line".to_owned()));
    }
    Ok(Script { data, steps })
}

fn add(steps: &mut Vec<Step>, statement: String) -> Result<(), String> {
    let statement = statement.trim().to_owned();
    let words: Vec<String> = statement.split_whitespace().map(str::to_ascii_uppercase).collect();
    let begins: Vec<&str> = words.iter().map(String::as_str).take(2).collect();
    let is_schema = matches!(
        begins.as_slice(),
        [
            "CREATE" | "DROP",
            "CONSTRAINT" | "INDEX" | "RANGE" | "TEXT" | "POINT" | "FULLTEXT" | "LOOKUP" | "VECTOR" | "OR"
        ]
    );
    if is_schema {
        let guard: &[&str] = match begins.first() {
            Some(&"DROP") => &["IF", "EXISTS"],
            _ => &["IF", "NOT", "EXISTS"],
        };
        if !words.windows(guard.len()).any(|window| window == guard) {
            return Err(format!("a schema statement lacks {}: {statement}", guard.join(" ")));
        }
        steps.push(Step::Schema(statement));
    } else if !statement.is_empty() {
        match steps.last_mut() {
            Some(Step::Data(statements)) => statements.push(statement),
            _ => steps.push(Step::Data(vec![statement])),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrations(files: &[(&str, &str)]) -> Result<Migrations, String> {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Migrations::new(files).map_err(|error| error.to_string())
    }

    const CONSTRAINT: &str = "CREATE CONSTRAINT a IF NOT EXISTS\nFOR (n:A) REQUIRE n.a IS UNIQUE;\n";

    #[test]
    fn the_program_s_own_migrations_are_sound() {
        Migrations::embedded().unwrap();
    }

    #[test]
    fn statements_are_split_and_sorted_into_transactions() {
        let text = format!(
            "// what it does\n// data: true\n\n{CONSTRAINT}MATCH (n:A)\n// why; \nSET n.url = 'https://x;y', n.b = 1;  \n\
             CREATE (n:Index);\ndrop index old\n if exists;\n  ;\n"
        );
        let script = script("x", &text).unwrap();
        assert!(script.data);
        assert_eq!(
            script.steps,
            [
                Step::Schema("CREATE CONSTRAINT a IF NOT EXISTS\nFOR (n:A) REQUIRE n.a IS UNIQUE".to_owned()),
                Step::Data(vec![
                    "MATCH (n:A)\nSET n.url = 'https://x;y', n.b = 1".to_owned(),
                    "CREATE (n:Index)".to_owned()
                ]),
                Step::Schema("drop index old\n if exists".to_owned()),
            ]
        );
    }

    #[test]
    fn files_that_would_fail_half_way_are_refused_before() {
        for (text, reason) in [
            ("MATCH (n) SET n.x = 1;", "it changes data"),
            ("CREATE INDEX a FOR (n:A) ON (n.a);", "lacks IF NOT EXISTS"),
            ("DROP CONSTRAINT a;", "lacks IF EXISTS"),
            ("DROP INDEX a IF EXISTS", "does not end with `;`"),
            ("// data: yes\nDROP INDEX a IF EXISTS;", "`// data: yes` is not understood"),
            ("DROP INDEX a IF EXISTS;\n// data: true\nMATCH (n) SET n.x = 1;", "before the first statement"),
        ] {
            let error = script("0001_a.up.cypher", text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("0001_a.up.cypher"), "{error}");
        }
    }

    #[test]
    fn numbers_have_no_gap_and_files_are_pairs() {
        let (one, two, three) = ("0001_a", "0002_b", "0003_c");
        let pair = |stem: &str| [format!("{stem}.up.cypher"), format!("{stem}.down.cypher")];
        let of = |stems: &[&str]| {
            let names: Vec<String> = stems.iter().flat_map(|stem| pair(stem)).collect();
            let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), CONSTRAINT)).collect();
            migrations(&files)
        };
        assert_eq!(of(&[three, one, two]).unwrap().newest(), 3);
        assert!(of(&[one, three]).unwrap_err().contains("0002 was expected"), "{:?}", of(&[one, three]));
        assert!(of(&[one, "0001_b"]).unwrap_err().contains("each number once"));
        assert!(migrations(&[("0001_a.up.cypher", "")]).unwrap_err().contains("0001_a.down.cypher"));
        for name in
            ["1_a.up.cypher", "0001-a.up.cypher", "0001_a.cypher", "0001_A.up.cypher", "0001_.up.cypher"]
        {
            assert!(migrations(&[(name, "")]).unwrap_err().contains("NNNN_name"), "{name}");
        }
        assert_eq!(migrations(&[("README.md", "")]).unwrap().newest(), 0);
    }

    #[test]
    fn a_checksum_covers_both_files_and_no_line_ends() {
        let of = |up: &str, down: &str| {
            let files = [("0001_a.up.cypher", up), ("0001_a.down.cypher", down)];
            migrations(&files).unwrap().all()[0].checksum.clone()
        };
        let (a, b) = ("// a\nDROP INDEX a IF EXISTS;\n", "// b\nDROP INDEX b IF EXISTS;\n");
        assert_eq!(of(a, b), of(&a.replace('\n', "\r\n"), b));
        assert_eq!(of(a, b).len(), 64);
        assert_ne!(of(a, b), of(a, a));
        assert_ne!(of(a, b), of(b, b));
        assert_ne!(of(&format!("{a}{b}"), ""), of(a, b));
    }
}
