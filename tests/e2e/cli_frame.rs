//! The frame of the program, from outside: options, configuration, secrets, output forms, exit codes.
//!
//! The modules that need nothing of the program (`render`, `secret`) are compiled in here as well, for what no command shows.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

// The program uses the rest of each.
#[allow(dead_code)]
#[path = "../../crates/cli/src/render.rs"]
mod render;
#[allow(dead_code)]
#[path = "../../crates/cli/src/secret.rs"]
mod secret;

const FORMS: [&str; 4] = ["table", "json", "csv", "md"];

/// A directory with a configuration, and the program started in it with an empty environment.
struct Place {
    dir: TempDir,
    env: BTreeMap<String, String>,
}

/// What a run gave.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new(toml: &str) -> Self {
        let place = Self { dir: TempDir::new().unwrap(), env: BTreeMap::new() };
        fs::write(place.file(), toml).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("rig.toml")
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvegraph"));
        command.env_clear().envs(&self.env).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command().args(args).output().unwrap())
    }

    fn show(&self, args: &[&str]) -> Ran {
        self.run(&[&["--config", "rig.toml", "config", "show"], args].concat())
    }

    /// The value and origin of each setting.
    fn settings(&self, args: &[&str]) -> BTreeMap<String, (Value, String)> {
        let ran = self.show(&[&["--origin", "-o", "json"], args].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rows = document["rows"].as_array().unwrap().iter();
        rows.map(|row| (text(&row["setting"]), (row["value"].clone(), text(&row["origin"])))).collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// Asserts that the run was refused with this code, with nothing on standard output and these words in its error.
    fn refused(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.err);
        assert_eq!(self.out, "");
        assert!(self.err.starts_with("error: "), "{}", self.err);
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
        self
    }
}

/// A cluster that is right, without its credentials and its trust.
const CLUSTER: &str = "[[clusters]]\nname = \"rig\"\nendpoints = [\"https://192.0.2.11:8006\"]\n";

fn cluster(more: &str) -> Place {
    Place::new(&format!("{CLUSTER}{more}"))
}

const TOKEN: &str = "token_id = \"inventory@pve!sync\"\ntoken_secret_file = \"rig.token\"\n";

#[test]
fn version_and_help() {
    let place = Place::new("");
    let version = place.run(&["--version"]);
    assert_eq!((version.code, version.err.as_str()), (Some(0), ""));
    assert_eq!(version.out, format!("pvegraph {}\n", env!("CARGO_PKG_VERSION")));
    let help = place.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in ["Examples:", "Exit codes:", "--config <FILE>", "--store <URI>", "--log-format", "  13  "] {
        assert!(help.out.contains(word), "{word:?} is not in the help");
    }
    let help = place.run(&["config", "show", "--help"]);
    assert!(help.out.contains("--origin") && help.out.contains("Examples:"));
}

#[test]
fn wrong_usage_ends_with_2() {
    let place = Place::new("");
    let unknown = place.show(&["--orign"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (Some(2), ""));
    assert!(unknown.err.contains("--orign") && unknown.err.contains("'--origin'"), "{}", unknown.err);
    assert_eq!(place.run(&["config", "shwo"]).code, Some(2));
    assert_eq!(place.show(&["-o", "xml"]).code, Some(2));
    assert_eq!(place.show(&["-q", "-v"]).code, Some(2));
    assert_eq!(place.show(&["--password", "x"]).code, Some(2));
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_one() {
    let place =
        Place::new("[store]\nuri = \"bolt://127.0.0.1\"\n\n[[clusters]]\nendpoint = [\"https://a:8006\"]\n");
    place
        .show(&[])
        .refused(10, &["rig.toml:5: unknown key `endpoint` in [[clusters]]: did you mean `endpoints`?"]);
    // All at once, from the top down.
    let place = Place::new("[sync]\nguard_form = 3\n[stroe]\n[store]\ntoken_id = \"x\"\nfrobnicate = 1\n");
    let ran = place.show(&[]);
    ran.refused(
        10,
        &[
            "rig.toml:2: unknown key `guard_form` in [sync]: did you mean `guard_from`?\n",
            "rig.toml:3: unknown key `stroe`: did you mean `store`?\n",
            "rig.toml:6: unknown key `frobnicate` in [store]\n",
        ],
    );
    assert!(ran.err.find(":2:") < ran.err.find(":3:") && ran.err.find(":3:") < ran.err.find(":6:"));
    Place::new("user = \"neo4j\"\n").show(&[]).refused(10, &["`user`: it belongs into [store]"]);
    Place::new("[clusters]\n").show(&[]).refused(10, &["write [[clusters]]"]);
}

#[test]
fn an_unknown_variable_is_refused() {
    let near = [
        ("PVEGRAPH__STORE__URL", "PVEGRAPH__STORE__URI"),
        ("PVEGRAPH__STOER__USER", "PVEGRAPH__STORE__USER"),
        ("PVEGRAPH_STORE_URI", "PVEGRAPH__STORE__URI"),
        ("PVEGRAPH_CLUSTERS_0_TOKEN_ID", "PVEGRAPH__CLUSTERS__0__TOKEN_ID"),
        ("PVEGRAPH__CLUSTERS__0__TOKEN_SECRT", "PVEGRAPH__CLUSTERS__0__TOKEN_SECRET"),
        ("PVEGRAPH__store__uri", "PVEGRAPH__STORE__URI"),
    ];
    for (given, meant) in near {
        let words = [format!("env {given}: unknown variable: did you mean {meant}?")];
        Place::new("").env(given, "hunter2").show(&[]).refused(10, &[&words[0]]);
    }
    let ran = Place::new("").env("PVEGRAPH__STORE__COLOUR", "1").show(&[]);
    ran.refused(10, &["PVEGRAPH__STORE__COLOUR: unknown variable\n"]);
    // Other programs' variables, and ours that are no settings, are left alone.
    assert_eq!(
        Place::new("").env("PVEGRAPH_TEST_NEO4J_URI", "x").env("STORE__URI", "x").show(&[]).code,
        Some(0)
    );
}

#[test]
fn layers_override_each_other_and_say_so() {
    let toml = format!(
        "[store]\nuri = \"bolt://file:7687\"\nuser = \"from-file\"\n\n{CLUSTER}{TOKEN}concurrency = 7\n"
    );
    let place = Place::new(&toml)
        .env("PVEGRAPH__STORE__URI", "bolt://env:7687")
        .env("PVEGRAPH__STORE__USER", "from-env")
        .env("PVEGRAPH__STORE__DATABASE", "")
        .env("PVEGRAPH__CLUSTERS__0__ENDPOINTS", "https://b:8006, https://c:8006")
        .env("PVEGRAPH__SYNC__OFFLINE_NODES", "ok");
    let file = fs::canonicalize(place.file()).unwrap();
    let at = |line: u32| format!("{}:{line}", file.display());
    let env = |name: &str| format!("env PVEGRAPH__{name}");
    let settings = place.settings(&["--store", "bolt://flag:7687"]);
    let expected = [
        ("store.uri", json!("bolt://flag:7687"), "flag --store".into()),
        ("store.user", json!("from-env"), env("STORE__USER")),
        ("store.database", json!(null), "default".into()),
        ("store.max_connections", json!(8), "default".into()),
        ("clusters[0].name", json!("rig"), at(6)),
        ("clusters[0].endpoints", json!(["https://b:8006", "https://c:8006"]), env("CLUSTERS__0__ENDPOINTS")),
        ("clusters[0].concurrency", json!(7), at(10)),
        ("clusters[0].per_node_concurrency", json!(8), "default".into()),
        ("sync.offline_nodes", json!("ok"), env("SYNC__OFFLINE_NODES")),
        ("sync.max_delete_percent", json!(30), "default".into()),
    ];
    for (name, value, origin) in expected {
        assert_eq!(settings[name], (value, origin), "{name}");
    }
}

#[test]
fn the_file_is_found_where_the_help_says() {
    let place = Place::new("[store]\nuser = \"named\"\n");
    let value = |place: &Place, args: &[&str]| {
        let ran = place.run(&[args, &["config", "show", "-o", "json"]].concat());
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        let rows = document["rows"].as_array().unwrap();
        rows.iter().find(|row| row["setting"] == "store.user").unwrap()["value"].clone()
    };
    fs::write(place.dir.path().join("pvegraph.toml"), "[store]\nuser = \"beside\"\n").unwrap();
    fs::write(place.dir.path().join("other.toml"), "[store]\nuser = \"variable\"\n").unwrap();
    assert_eq!(value(&place, &[]), "beside");
    let place = place.env("PVEGRAPH_CONFIG", "other.toml");
    assert_eq!(value(&place, &[]), "variable");
    assert_eq!(value(&place, &["--config", "rig.toml"]), "named");
    let place = place.env("PVEGRAPH_CONFIG", "absent.toml");
    place
        .run(&["config", "show"])
        .refused(10, &["absent.toml", "PVEGRAPH_CONFIG", "caused by: No such file"]);
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let place = Place::new("");
    let inner = place.dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let toml = format!(
        "[store]\nuri = \"embedded:graph.kgl\"\npassword_file = \"neo4j.password\"\n{CLUSTER}{TOKEN}ca_file = \"/etc/ca.pem\"\n"
    );
    fs::write(inner.join("pvegraph.toml"), toml).unwrap();
    let ran = place.run(&["--config", "inner/pvegraph.toml", "config", "show", "-o", "csv"]);
    let inner = fs::canonicalize(inner).unwrap();
    let inner = inner.display();
    for line in [
        format!("store.uri,embedded:{inner}/graph.kgl\n"),
        format!("store.password_file,{inner}/neo4j.password\n"),
        format!("clusters[0].token_secret_file,{inner}/rig.token\n"),
        "clusters[0].ca_file,/etc/ca.pem\n".into(),
    ] {
        assert!(ran.out.contains(&line), "{line} is not in {}", ran.out);
    }
}

#[test]
fn show_has_four_forms() {
    let place = cluster(TOKEN);
    let json: Value = serde_json::from_str(&place.show(&["--origin", "-o", "json"]).out).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["columns"], json!(["setting", "value", "origin"]));
    assert_eq!(json.as_object().unwrap().len(), 3);
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(
        rows[0],
        json!({"setting": "store.uri", "value": "bolt://127.0.0.1:7687", "origin": "default"})
    );

    let csv = place.show(&["--origin", "-o", "csv"]).out;
    assert!(csv.starts_with("setting,value,origin\nstore.uri,bolt://127.0.0.1:7687,default\n"), "{csv}");
    let md = place.show(&["--origin", "-o", "md"]).out;
    assert!(
        md.starts_with("| setting | value | origin |\n| --- | --- | --- |\n| store.uri | bolt://"),
        "{md}"
    );
    let table = place.show(&["--origin"]).out;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = table.lines().map(words);
    assert_eq!(lines.next().unwrap(), ["setting", "value", "origin"]);
    assert_eq!(lines.next().unwrap(), ["store.uri", "bolt://127.0.0.1:7687", "default"]);
    // One line for each row in every form, after one line of heading and in Markdown one of rules.
    assert_eq!(csv.lines().count(), rows.len() + 1);
    assert_eq!(table.lines().count(), rows.len() + 1);
    assert_eq!(md.lines().count(), rows.len() + 2);
    let without = place.show(&["-o", "csv"]).out;
    assert!(without.starts_with("setting,value\n"), "{without}");
}

#[test]
fn secrets_are_never_printed() {
    const SECRETS: [&str; 4] = ["hunter2-store", "hunter2-token", "hunter2-user", "hunter2-file"];
    let toml = format!(
        "{CLUSTER}{TOKEN}[[clusters]]\nname = \"other\"\nendpoints = [\"https://b:8006\"]\nusername = \"root@pam\"\n"
    );
    let place = Place::new(&toml)
        .env("PVEGRAPH__STORE__PASSWORD", SECRETS[0])
        .env("PVEGRAPH__CLUSTERS__0__TOKEN_SECRET", SECRETS[1])
        .env("PVEGRAPH__CLUSTERS__1__PASSWORD", SECRETS[2])
        .env("RUST_LOG", "trace");
    fs::write(place.dir.path().join("rig.token"), SECRETS[3]).unwrap();
    let clean = |ran: &Ran| {
        for secret in SECRETS.iter().chain(&["hunter2"]) {
            assert!(
                !ran.out.contains(secret) && !ran.err.contains(secret),
                "{secret} in {}{}",
                ran.out,
                ran.err
            );
        }
    };
    for form in FORMS {
        for more in [&["--origin"][..], &["--origin", "-vv"], &["-vv", "--log-format", "json"]] {
            let ran = place.show(&[&["-o", form], more].concat());
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            assert!(ran.out.contains("rig.token"), "the file's path is shown: {}", ran.out);
            assert!(ran.out.contains("(hidden)"), "that one is set is shown: {}", ran.out);
            clean(&ran);
        }
    }
    // Nor where they are refused: in the file, in a URI, behind a token's id, in a line that is not TOML.
    let refused = [
        ("[store]\npassword = \"hunter2\"\n".to_owned(), "rig.toml:2"),
        (format!("{CLUSTER}token_secret = \"hunter2\"\n"), "`token_secret_file`"),
        (format!("{CLUSTER}token_id = \"a@pve!b=hunter2\"\n"), "`token_secret_file`"),
        ("[store]\nuri = \"bolt://neo4j:hunter2@127.0.0.1:7687\"\n".to_owned(), "`password_file`"),
        ("[[clusters]]\nendpoints = [\"https://root:hunter2@b:8006\"]\n".to_owned(), "credentials"),
        ("[[clusters]]\nendpoints = [\"http://root:hunter2@b:8006\"]\n".to_owned(), "credentials"),
        ("[store]\nuser = \"neo4j\"\npassword = \"hunter2\n".to_owned(), "rig.toml:3: not TOML"),
        ("[store]\npasswort = \"hunter2\"\n".to_owned(), "unknown key `passwort`"),
    ];
    for (toml, word) in refused {
        let ran = Place::new(&toml).show(&["-vv"]);
        clean(&ran);
        assert_eq!(ran.code, Some(10), "{toml}");
        assert!(ran.err.contains(word), "{word:?} is not in {}", ran.err);
    }
    let ran = Place::new("").show(&["--store", "neo4j://neo4j:hunter2@127.0.0.1"]);
    clean(ran.refused(10, &["flag --store"]));
}

#[test]
fn a_cluster_is_checked_as_a_whole() {
    let user = "username = \"root@pam\"\n";
    let refused = [
        (String::new(), "rig.toml:2: cluster \"rig\": no credentials: give `token_id`"),
        (format!("{TOKEN}{user}"), "two ways to log in"),
        (format!("{user}token_secret_file = \"x\"\n"), "two ways to log in"),
        ("token_secret_file = \"x\"\n".into(), "`token_id` is missing"),
        ("password_file = \"x\"\n".into(), "`username` is missing"),
        ("token_id = \"sync\"\n".into(), "USER@REALM!TOKEN"),
        ("username = \"root\"\n".into(), "USER@REALM"),
        (format!("{TOKEN}ca_file = \"a\"\ninsecure = true\n"), "exclude each other"),
        (format!("{TOKEN}fingerprint = \"{}\"\nca_file = \"a\"\n", "AB".repeat(32)), "exclude each other"),
        (format!("{TOKEN}fingerprint = \"AB:CD\"\n"), "SHA-256"),
        (format!("{TOKEN}concurrency = 0\n"), "clusters[0].concurrency must be a whole number from 1"),
        (format!("{TOKEN}insecure = \"true\"\n"), "must be true or false, and is of type string"),
        (format!("{TOKEN}run_timeout = \"90\"\n"), "a length of time with its unit"),
        (format!("{TOKEN}run_timeout = \"0s\"\n"), "longer than nothing"),
        (format!("{TOKEN}{CLUSTER}{TOKEN}"), "rig.toml:7: cluster \"rig\" is there twice (first at "),
    ];
    for (more, word) in refused {
        cluster(&more).show(&[]).refused(10, &[word]);
    }
    let endpoints = [
        ("[]", "`endpoints` is missing or empty"),
        ("[\"http://a:8006\"]", "not encrypted"),
        ("[\"a:8006\"]", "https://"),
        ("[\"192.0.2.1\"]", "not a URL"),
        ("[\"https://a:8006/api2/json\"]", "without /api2/json"),
        ("\"https://a:8006\"", "a list of texts"),
    ];
    for (endpoints, word) in endpoints {
        let place = Place::new(&format!("[[clusters]]\nendpoints = {endpoints}\n{TOKEN}"));
        place.show(&[]).refused(10, &["rig.toml:2", "clusters[0]", word]);
    }
    let place = Place::new(&format!("[[clusters]]\nname = \"../x\"\nendpoints = [\"https://a\"]\n{TOKEN}"));
    place.show(&[]).refused(10, &["a name is made of"]);
    // A conflict between two layers names both.
    let place = cluster(&format!("{TOKEN}ca_file = \"a\"\n")).env("PVEGRAPH__CLUSTERS__0__INSECURE", "true");
    place.show(&[]).refused(10, &["rig.toml:6", "env PVEGRAPH__CLUSTERS__0__INSECURE"]);
}

#[test]
fn a_cluster_can_come_from_the_environment_alone() {
    let place = Place::new("")
        .env("PVEGRAPH__CLUSTERS__0__ENDPOINTS", "https://a:8006")
        .env("PVEGRAPH__CLUSTERS__0__TOKEN_ID", "inventory@pve!sync")
        .env("PVEGRAPH__CLUSTERS__0__FINGERPRINT", &"ab".repeat(32));
    let settings = place.settings(&[]);
    assert_eq!(settings["clusters[0].fingerprint"].0, ["AB"; 32].join(":"));
    assert_eq!(settings["clusters[0].concurrency"], (json!(64), "default".into()));
    let place = place.env("PVEGRAPH__CLUSTERS__18446744073709551615__TOKEN_ID", "inventory@pve!sync");
    place
        .show(&[])
        .refused(10, &["there is no cluster 1", "PVEGRAPH__CLUSTERS__18446744073709551615__TOKEN_ID"]);
}

#[test]
fn store_uris() {
    for good in ["bolt://h", "bolt+s://h:7687", "neo4j://h", "neo4j+s://[2001:db8::1]:7687", "embedded:g.kgl"]
    {
        assert_eq!(Place::new("").show(&["--store", good]).code, Some(0), "{good}");
    }
    for bad in ["http://h:7474", "h:7687", "bolt://", "embedded:", ""] {
        Place::new("").show(&["--store", bad]).refused(10, &["flag --store: store.uri"]);
    }
}

#[test]
fn bad_files() {
    let place = Place::new("[store\n");
    place.show(&[]).refused(10, &["rig.toml:1: not TOML"]);
    fs::write(place.file(), b"[store]\nuser = \"\xff\"\n").unwrap();
    place.show(&[]).refused(10, &["rig.toml", "UTF-8"]);
    place.run(&["--config", "absent.toml", "config", "show"]).refused(10, &["absent.toml (from --config)"]);
    place.run(&["--config", ".", "config", "show"]).refused(10, &["caused by: Is a directory"]);
    fs::write(place.file(), "[store]\nuser = 1\nuser = 2\n").unwrap();
    place.show(&[]).refused(10, &["rig.toml:3", "duplicate"]);
}

#[test]
fn the_example_is_valid_and_complete() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config.example.toml");
    let text = fs::read_to_string(&example).unwrap();
    let place = Place::new(&text);
    let settings = place.settings(&[]);
    for (name, (value, origin)) in &settings {
        let (section, key) = name.split_once('.').unwrap();
        let heading =
            section.strip_suffix("[0]").map_or(format!("[{section}]"), |list| format!("[[{list}]]"));
        let lines = text
            .lines()
            .skip_while(|line| *line != heading)
            .skip(1)
            .take_while(|line| !line.starts_with('['));
        let start = format!("{key} = ");
        let written =
            lines.map(|line| line.trim_start_matches("# ")).find_map(|line| line.strip_prefix(&start));
        let written = written.unwrap_or_else(|| panic!("{name} is not in the example"));
        // What is commented out is the default.
        if origin == "default" && !value.is_null() {
            let written = written.split(" #").next().unwrap().trim();
            assert_eq!(written, value.to_string(), "{name}");
        }
    }
}

#[test]
fn logs_go_to_standard_error() {
    let place = Place::new("");
    assert_eq!(place.show(&[]).err, "");
    let ran = place.show(&["-v", "--log-format", "json"]);
    let lines: Vec<Value> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["level"] == "DEBUG" && line["message"] == "configuration file"));
    assert!(ran.out.starts_with("setting"));
    assert!(place.show(&["-v"]).err.contains("configuration file"));
    assert_eq!(place.show(&["-q"]).err, "");
    let loud = Place::new("").env("RUST_LOG", "pvegraph=debug");
    assert!(loud.show(&[]).err.contains("configuration file"));
    assert_eq!(loud.show(&["-q"]).err, "", "a flag overrides a variable");
    let loud = loud.env("PVEGRAPH_LOG", "warn");
    assert_eq!(loud.show(&[]).err, "", "the program's own variable comes first");
    let bad = Place::new("").env("PVEGRAPH_LOG", "pvegraph=loudly");
    bad.show(&[]).refused(10, &["PVEGRAPH_LOG is not a log filter", "caused by: "]);
}

#[test]
fn nothing_drives_the_terminal() {
    let place = Place::new("").env("PVEGRAPH__STORE__USER", "neo\u{1b}[31m\u{202e}4j|x");
    for form in ["table", "md"] {
        let out = place.show(&["-o", form]).out;
        assert!(!out.contains('\u{1b}') && !out.contains('\u{202e}'), "{out}");
        assert!(out.contains("u{1b}"), "{out}");
    }
    assert!(place.show(&["-o", "md"]).out.contains("4j\\|x |"));
    let place = Place::new("[store]\n\"a\\u001bb\" = 1\n");
    let ran = place.show(&[]);
    assert!(!ran.refused(10, &["unknown key"]).err.contains('\u{1b}'));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new("");
    for form in FORMS {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let run = place.command().args(["config", "show", "-o", form]).stdout(writer).output().unwrap();
        let ran = Ran::from(run);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{form}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let run = Place::new("").command().args(["config", "show"]).stdout(full).output().unwrap();
    Ran::from(run).refused(1, &["No space left"]);
}

mod rendering {
    use super::render::{Output, Report};
    use pvegraph_graph::Rows;
    use serde_json::{Value, json};

    fn report(columns: &[&str], rows: Vec<Vec<Value>>) -> Report {
        Report::new(Rows { columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows })
    }

    fn text(report: &Report, output: Output, terminal: bool) -> String {
        let mut out = Vec::new();
        report.write(output, terminal, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_exact_and_keeps_the_order_of_columns() {
        let rows = vec![vec![json!(1_073_741_824_u64), json!(0.1), json!(null), json!(["b", "a"])]];
        let report = report(&["z", "a", "n", "m"], rows).with_bytes(["z"]).with_extra("complete", false);
        assert_eq!(
            text(&report, Output::Json, false),
            "{\"version\":1,\"columns\":[\"z\",\"a\",\"n\",\"m\"],\"rows\":[{\"z\":1073741824,\"a\":0.1,\"n\":null,\
             \"m\":[\"b\",\"a\"]}],\"complete\":false}\n"
        );
    }

    #[test]
    fn tables_are_readable_and_csv_is_exact() {
        let rows = vec![
            vec![json!("a"), json!(1_610_612_736_u64), json!(0.123_456), json!(["x", "y"])],
            vec![json!("bb"), json!(null), json!(2.0), json!({"labels": ["L"]})],
            vec![json!("c"), json!(512), json!(0.000_001), json!([])],
        ];
        let report = report(&["name", "size", "load", "more"], rows).with_bytes(["size"]);
        let table = [
            "name      size    load  more",
            "a     1.50 GiB  0.1235  x, y",
            "bb           -       2  {\"labels\":[\"L\"]}",
            "c        512 B  1.0e-6",
        ];
        assert_eq!(text(&report, Output::Table, false).lines().collect::<Vec<_>>(), table);
        let csv = "name,size,load,more\na,1610612736,0.123456,\"x, y\"\nbb,,2.0,\"{\"\"labels\"\":[\"\"L\"\"]}\"\nc,512,1e-6,\n";
        assert_eq!(text(&report, Output::Csv, false), csv);
    }

    #[test]
    fn what_a_remote_named_stays_in_its_cell() {
        let report = report(&["n|c"], vec![vec![json!("a|b\\|<img>\nnext\u{9b}2J")]]);
        let md = text(&report, Output::Md, false);
        assert_eq!(md, "| n\\|c |\n| --- |\n| a\\|b\\\\\\|\\<img>\\\\nnext\\\\u{9b}2J |\n");
        assert!(!text(&report, Output::Table, false).contains('\u{9b}'));
        assert_eq!(text(&report, Output::Table, false).lines().count(), 2);
        // For programs the value is exact, for a terminal harmless.
        for output in [Output::Json, Output::Csv] {
            assert!(text(&report, output, false).contains('\u{9b}'));
            assert!(!text(&report, output, true).contains('\u{9b}'));
        }
        let read: Value = serde_json::from_str(&text(&report, Output::Json, true)).unwrap();
        assert_eq!(read["rows"][0]["n|c"], "a|b\\|<img>\nnext\u{9b}2J");
    }

    #[test]
    fn no_rows() {
        let report = report(&["a", "b"], vec![]);
        assert_eq!(text(&report, Output::Table, false), "a  b\n(no rows)\n");
        assert_eq!(
            text(&report, Output::Json, false),
            "{\"version\":1,\"columns\":[\"a\",\"b\"],\"rows\":[]}\n"
        );
        assert_eq!(text(&report, Output::Csv, false), "a,b\n");
        assert_eq!(text(&report, Output::Md, false), "| a | b |\n| --- | --- |\n");
    }
}

mod secrets {
    use std::fs;
    use std::path::Path;

    use secrecy::{ExposeSecret, SecretString};
    use tempfile::TempDir;

    use super::secret::{EnvSecret, Secret, SecretError};

    fn secret<'a>(file: Option<&'a Path>, env: Option<&'a EnvSecret>) -> Secret<'a> {
        Secret {
            what: "the password of the graph store".into(),
            setting: "store.password_file".into(),
            file,
            credential: "store.password".into(),
            env,
            variable: "PVEGRAPH__STORE__PASSWORD".into(),
        }
    }

    fn chain(error: &dyn std::error::Error) -> String {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    }

    #[test]
    fn file_then_credential_then_environment() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "from file\n").unwrap();
        let env = EnvSecret { variable: "V".into(), value: SecretString::from("from env") };
        let read = |file: Option<&Path>, env: Option<&EnvSecret>| {
            let read = secret(file, env).read_with(Some(dir.path())).unwrap();
            read.map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(read(None, None), None);
        assert_eq!(read(None, Some(&env)).as_deref(), Some("from env"));
        fs::write(dir.path().join("store.password"), "from systemd").unwrap();
        assert_eq!(read(None, Some(&env)).as_deref(), Some("from systemd"));
        assert_eq!(read(Some(&file), Some(&env)).as_deref(), Some("from file"));
        let missing = secret(None, None).missing().to_string();
        for word in ["`store.password_file`", "PVEGRAPH__STORE__PASSWORD", "`store.password`"] {
            assert!(missing.contains(word), "{missing}");
        }
    }

    #[test]
    fn only_the_line_end_is_cut_off() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("password");
        for (content, expected) in [(" a b ", " a b "), ("x\n", "x"), ("x\r\n", "x"), ("ü", "ü")] {
            fs::write(&file, content).unwrap();
            let read = secret(Some(&file), None).read_with(None).unwrap().unwrap();
            assert_eq!(read.expose_secret(), expected, "{content:?}");
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_cause_and_never_quoted() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("password");
        let refused = |path: &Path, word: &str| {
            let error = secret(Some(path), None).read_with(None).unwrap_err();
            let text = format!("{} {error:?}", chain(&error));
            assert!(text.contains(word), "{word:?} is not in {text}");
            assert!(
                text.contains(&path.display().to_string()) && text.contains("store.password_file"),
                "{text}"
            );
            assert!(!text.contains("hunter2"), "{text}");
        };
        for (content, word) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"id\nhunter2\n", "more than one line"),
            (b"hunter2\xff", "not UTF-8"),
        ] {
            fs::write(&file, content).unwrap();
            refused(&file, word);
        }
        fs::write(&file, "hunter2".repeat(10_000)).unwrap();
        refused(&file, "larger than 64 KiB");
        refused(&dir.path().join("absent"), "No such file");
        refused(dir.path(), "Is a directory");
        // An empty credential is no reason to go on to the environment.
        fs::write(dir.path().join("store.password"), "").unwrap();
        let error = secret(None, None).read_with(Some(dir.path())).unwrap_err();
        assert!(matches!(error, SecretError::Content { .. }));
    }
}
