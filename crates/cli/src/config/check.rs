//! What the settings must hold together: each problem names the setting, where it is, and the mend.

use std::collections::{BTreeSet, HashMap};

use url::Url;

use super::keys::Section;
use super::layers::setting;
use super::{ClusterSettings, EMBEDDED, Login, Problem, RawCluster, Shown, StoreSettings, Trust};

const STORE_SCHEMES: [&str; 6] = ["bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"];

/// The length of a SHA-256 in hexadecimal digits.
const FINGERPRINT_DIGITS: usize = 64;

/// Where each setting comes from.
pub struct Origins<'a>(HashMap<&'a str, &'a str>);

impl<'a> Origins<'a> {
    /// Reads them from what `config show` would print.
    pub fn new(shown: &'a [Shown]) -> Self {
        Self(shown.iter().map(|row| (row.name.as_str(), row.origin.as_str())).collect())
    }

    fn of(&self, name: &str) -> &str {
        self.0.get(name).copied().unwrap_or("default")
    }

    /// The first place that says anything about a cluster.
    fn of_cluster(&self, index: usize) -> &str {
        let keys = Section::Clusters.keys().iter();
        keys.map(|key| self.of(&setting(Section::Clusters, index, key.name)))
            .find(|origin| *origin != "default")
            .unwrap_or("configuration")
    }
}

/// What to call a cluster in messages.
pub fn label(index: usize, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("cluster {name:?}"),
        None => format!("clusters[{index}]"),
    }
}

/// Checks `[store]`.
pub fn store(store: &StoreSettings, origins: &Origins<'_>, problems: &mut Vec<Problem>) {
    let mut refuse = |message: String| problems.push(Problem::new(origins.of("store.uri"), message));
    if let Some(path) = store.embedded_path() {
        if path.as_os_str().is_empty() {
            refuse(format!("store.uri names no file: write {EMBEDDED}PATH, such as {EMBEDDED}graph.kgl"));
        }
        return;
    }
    match Url::parse(&store.uri) {
        Ok(uri) if has_credentials(&uri) => {
            refuse(
                "store.uri holds credentials: take them out, and use `user` and `password_file` in [store]"
                    .into(),
            );
        }
        Ok(uri) if !STORE_SCHEMES.contains(&uri.scheme()) || uri.host_str().is_none_or(str::is_empty) => {
            refuse(format!(
                "store.uri must be bolt://HOST:PORT or neo4j://HOST:PORT (with +s for TLS), or {EMBEDDED}PATH"
            ));
        }
        Ok(_) => {}
        Err(error) => refuse(format!(
            "store.uri is not a URI ({error}): write bolt://HOST:PORT or neo4j://HOST:PORT, or {EMBEDDED}PATH for a file"
        )),
    }
}

/// Checks the clusters, and gives those that are right.
pub fn clusters(
    raw: Vec<RawCluster>,
    origins: &Origins<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<ClusterSettings> {
    let mut names: HashMap<String, String> = HashMap::new();
    let mut clusters = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let check = ClusterCheck { index, label: label(index, raw.name.as_deref()), origins };
        if let Some(name) = &raw.name {
            let origin = check.origin("name");
            if let Some(first) = names.insert(name.clone(), origin.to_owned()) {
                let message = format!("{} is there twice (first at {first}): names must differ", check.label);
                problems.push(Problem::new(origin, message));
            }
        }
        match check.cluster(raw) {
            Ok(cluster) => clusters.push(cluster),
            Err(found) => problems.extend(found),
        }
    }
    clusters
}

struct ClusterCheck<'a> {
    index: usize,
    label: String,
    origins: &'a Origins<'a>,
}

impl ClusterCheck<'_> {
    fn origin(&self, key: &str) -> &str {
        self.origins.of(&setting(Section::Clusters, self.index, key))
    }

    fn problem(&self, key: &str, message: impl AsRef<str>) -> Problem {
        Problem::new(self.origin(key), format!("{}: {}", self.label, message.as_ref()))
    }

    fn problem_at_all(&self, message: impl AsRef<str>) -> Problem {
        Problem::new(self.origins.of_cluster(self.index), format!("{}: {}", self.label, message.as_ref()))
    }

    fn cluster(&self, raw: RawCluster) -> Result<ClusterSettings, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut keep = |problem: Problem| problems.push(problem);
        if let Some(name) = &raw.name {
            self.name(name).unwrap_or_else(&mut keep);
        }
        let endpoints = self.endpoints(&raw.endpoints).map_err(|found| found.into_iter().for_each(&mut keep));
        let login = self.login(&raw).map_err(&mut keep);
        let trust = self.trust(&raw).map_err(&mut keep);
        let keep_up = self.keep_up(&raw.keep_up).map_err(&mut keep);
        match (endpoints, login, trust, keep_up) {
            (Ok(endpoints), Ok(login), Ok(trust), Ok(keep_up)) if problems.is_empty() => {
                Ok(ClusterSettings {
                    index: self.index,
                    name: raw.name,
                    endpoints,
                    login,
                    trust,
                    concurrency: raw.concurrency,
                    per_node_concurrency: raw.per_node_concurrency,
                    connect_timeout: raw.connect_timeout,
                    request_timeout: raw.request_timeout,
                    run_timeout: raw.run_timeout,
                    keep_up,
                })
            }
            _ => Err(problems),
        }
    }

    /// A name is a key in the graph and a part of a credential's file name.
    fn name(&self, name: &str) -> Result<(), Problem> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.is_empty() && name.chars().all(good) && !name.starts_with('.') {
            return Ok(());
        }
        Err(self.problem("name", "a name is made of letters, digits, hyphens, underscores and dots"))
    }

    fn keep_up(&self, given: &[String]) -> Result<BTreeSet<i64>, Problem> {
        let number = |text: &String| text.parse().ok().filter(|vmid| (100..=999_999_999).contains(vmid));
        let read = |text: &String| {
            number(text).ok_or_else(|| {
                self.problem(
                    "keep_up",
                    format!("`keep_up` has numbers of guests, such as \"100\", and not {text:?}"),
                )
            })
        };
        given.iter().map(read).collect()
    }

    fn endpoints(&self, given: &[String]) -> Result<Vec<Url>, Vec<Problem>> {
        if given.is_empty() {
            let message = "`endpoints` is missing or empty: give at least one URL, such as \"https://pve1.example:8006\"";
            return Err(vec![self.problem_at_all(message)]);
        }
        let (urls, problems): (Vec<_>, Vec<_>) =
            given.iter().map(|endpoint| self.endpoint(endpoint)).partition(Result::is_ok);
        if problems.is_empty() {
            return Ok(urls.into_iter().flatten().collect());
        }
        Err(problems.into_iter().filter_map(Result::err).collect())
    }

    fn endpoint(&self, given: &str) -> Result<Url, Problem> {
        let problem = |message: String| self.problem("endpoints", message);
        let url = match Url::parse(given) {
            Ok(url) => url,
            // `pve1:8006` has no scheme, or one that is called `pve1`. The text itself may hold a password.
            Err(error) => {
                let message = format!("an endpoint is not a URL ({error}): write https://HOST:8006");
                return Err(problem(message));
            }
        };
        if has_credentials(&url) {
            let message =
                "an endpoint holds credentials: take them out, and use `token_id` with `token_secret_file`";
            return Err(problem(message.into()));
        }
        let shown = given.escape_debug();
        if url.scheme() == "http" {
            let message =
                format!("endpoint {shown} is not encrypted, and would show the secret: write https://");
            return Err(problem(message));
        }
        if url.scheme() != "https" || !url.has_host() {
            return Err(problem(format!("endpoint {shown} is not an HTTPS URL: write https://HOST:8006")));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            let message =
                format!("endpoint {shown} has a path: only https://HOST:PORT is wanted, without /api2/json");
            return Err(problem(message));
        }
        Ok(url)
    }

    fn login(&self, raw: &RawCluster) -> Result<Login, Problem> {
        let token = ["token_id", "token_secret_file"];
        let user = ["username", "password_file"];
        let has_token = raw.token_id.is_some() || raw.token_secret_file.is_some();
        let has_user = raw.username.is_some() || raw.password_file.is_some();
        if has_token && has_user {
            let place = |keys: [&str; 2]| {
                let set = keys.into_iter().find(|key| self.origin(key) != "default").unwrap_or(keys[0]);
                format!("`{set}` ({})", self.origin(set))
            };
            let message = format!("{} and {} are two ways to log in: keep one", place(token), place(user));
            return Err(self.problem_at_all(message));
        }
        match (&raw.token_id, &raw.username) {
            (Some(id), _) => {
                let (user, token) = id.split_once('!').unwrap_or((id, ""));
                if id.contains('=') {
                    let message = "`token_id` must not hold the secret (what follows `=`): put that into the file \
                                   that `token_secret_file` names";
                    return Err(self.problem("token_id", message));
                }
                if token.is_empty() || !is_user(user) {
                    let message = "`token_id` must be USER@REALM!TOKEN, such as \"inventory@pve!sync\"";
                    return Err(self.problem("token_id", message));
                }
                Ok(Login::Token { id: id.clone(), secret_file: raw.token_secret_file.clone() })
            }
            (None, Some(username)) => {
                if !is_user(username) {
                    let message = "`username` must be USER@REALM, such as \"root@pam\" or \"inventory@pve\"";
                    return Err(self.problem("username", message));
                }
                Ok(Login::Password { username: username.clone(), password_file: raw.password_file.clone() })
            }
            (None, None) if has_token => Err(self.problem("token_secret_file", "`token_id` is missing beside it")),
            (None, None) if has_user => Err(self.problem("password_file", "`username` is missing beside it")),
            (None, None) => Err(self.problem_at_all(
                "no credentials: give `token_id` with `token_secret_file`, or `username` with `password_file`",
            )),
        }
    }

    fn trust(&self, raw: &RawCluster) -> Result<Trust, Problem> {
        let mut given = Vec::new();
        if let Some(path) = &raw.ca_file {
            given.push(("ca_file", Trust::CaFile(path.clone())));
        }
        if let Some(fingerprint) = &raw.fingerprint {
            given.push(("fingerprint", Trust::Fingerprint(self.fingerprint(fingerprint)?)));
        }
        if raw.insecure {
            given.push(("insecure", Trust::Insecure));
        }
        if given.len() > 1 {
            let places: Vec<_> =
                given.iter().map(|(key, _)| format!("`{key}` ({})", self.origin(key))).collect();
            let message = format!("{} exclude each other: keep one", places.join(" and "));
            return Err(self.problem_at_all(message));
        }
        Ok(given.pop().map_or(Trust::SystemRoots, |(_, trust)| trust))
    }

    /// One fingerprint, or several with commas between them: every node has a certificate of its own.
    fn fingerprint(&self, given: &str) -> Result<String, Problem> {
        let one = |text: &str| {
            let digits: Vec<char> =
                text.trim().chars().filter(|c| *c != ':').map(|c| c.to_ascii_uppercase()).collect();
            let right = digits.len() == FINGERPRINT_DIGITS && digits.iter().all(char::is_ascii_hexdigit);
            right.then(|| {
                digits.chunks(2).map(|pair| pair.iter().collect::<String>()).collect::<Vec<_>>().join(":")
            })
        };
        let all: Option<Vec<String>> = given.split(',').map(one).collect();
        all.map(|all| all.join(",")).ok_or_else(|| {
            let message = "`fingerprint` must be the certificate's SHA-256, 32 pairs of hexadecimal digits (`pvenode cert info` \
                           prints it); several, one for each endpoint, have commas between them";
            self.problem("fingerprint", message)
        })
    }
}

fn is_user(text: &str) -> bool {
    // The realm follows the last `@`: a user's name may hold others.
    text.rsplit_once('@').is_some_and(|(user, realm)| !user.is_empty() && !realm.is_empty())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '!' || c == ':')
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
