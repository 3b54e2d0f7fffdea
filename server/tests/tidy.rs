//! What holds for the repository as a whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !matches!(name, "target" | ".git" | "corpus") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn our_crates_depend_on_each_other_only_as_the_architecture_says() {
    let manifest = root().join("Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let allowed: &[(&str, &[&str])] = &[
        ("vidar-core", &[]),
        ("vidar-aws-wire", &["core"]),
        ("vidar-media", &["core"]),
        ("vidar-storage", &["core"]),
        ("vidar-indexer", &["core"]),
        ("vidar-live", &["core"]),
        ("vidar-ingest", &["core", "media"]),
        ("vidar-player-api", &["core", "media", "live", "indexer"]),
        ("vidar-kvs-api", &["core", "aws-wire", "media", "live", "indexer", "ingest", "player-api"]),
        (
            "vidar-server",
            &["core", "aws-wire", "media", "storage", "indexer", "live", "ingest", "player-api", "kvs-api"],
        ),
        ("vidar-fixtures", &[]),
        ("vidar-load", &[]),
        ("vidar-sdk-tests", &[]),
        ("vidar-sim", &["core", "media", "storage", "indexer", "live", "ingest", "player-api", "server"]),
        (
            "vidar-benches",
            &["core", "media", "storage", "indexer", "live", "ingest", "player-api", "server", "fixtures", "load"],
        ),
    ];
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() >= 9, "{}", packages.len());
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let (_, allowed) =
            allowed.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("unknown crate {name}"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("a name");
            let normal = dependency["kind"].is_null();
            if let Some(ours) = on.strip_prefix("vidar-").filter(|_| normal) {
                assert!(allowed.contains(&ours), "{name} must not depend on {on}");
            }
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 50, "{}", files.len());
    let without: Vec<&PathBuf> = files
        .iter()
        .filter(|path| {
            let text = fs::read_to_string(path).expect("a readable file");
            !text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default().starts_with("//!")
        })
        .collect();
    assert!(without.is_empty(), "no header: {without:?}");
}

#[test]
fn every_fixture_has_a_row() {
    let readme = read("fixtures/README.md");
    for entry in fs::read_dir(root().join("fixtures/data")).expect("a readable folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("a UTF-8 name");
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in fixtures/README.md");
    }
}

#[test]
fn every_metric_is_documented() {
    let (source, docs) = (read("server/src/operate.rs"), read("docs/operating.md"));
    let names = source.split("metric(\"").skip(1).map(|rest| rest.split('"').next().expect("a name"));
    let names: BTreeSet<&str> = names.collect();
    assert!(names.len() > 5);
    for name in names {
        assert!(docs.contains(&format!("`vidar_{name}`")), "vidar_{name} is not in docs/operating.md");
    }
}

#[test]
fn every_fuzz_body_has_a_target_and_a_corpus() {
    let mut bodies = Vec::new();
    for file in [
        "aws-wire/src/fuzz.rs",
        "media/src/fuzz.rs",
        "storage/src/fuzz.rs",
        "indexer/src/fuzz.rs",
        "ingest/src/fuzz.rs",
        "player-api/src/fuzz.rs",
    ] {
        let text = read(file);
        // A body takes bytes and nothing else; what bodies share does not.
        let signatures = text.lines().filter_map(|line| line.strip_prefix("pub fn ")?.strip_suffix(": &[u8]) {"));
        let bodies_here = signatures.filter(|signature| !signature.contains(", "));
        bodies.extend(bodies_here.filter_map(|signature| Some(signature.split_once('(')?.0.to_owned())));
    }
    assert!(bodies.len() >= 10, "{bodies:?}");
    for name in bodies {
        assert!(root().join(format!("fuzz/runner/fuzz_targets/{name}.rs")).is_file(), "no fuzz target {name}");
        let corpus = root().join(format!("fuzz/corpus/{name}"));
        let seeds = fs::read_dir(&corpus).map(|entries| entries.count()).unwrap_or_default();
        assert!(seeds > 0, "no corpus {}", corpus.display());
    }
}
