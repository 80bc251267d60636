//! The tables of docs/ARCHITECTURE.md against the manifests and the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use toml::Table;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of the table whose first column has this heading, row by row.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let head = format!("| {heading} |");
    let rows =
        text.lines().skip_while(|line| !line.starts_with(&head)).skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> =
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect();
    assert!(!rows.is_empty(), "no table of {heading}s");
    rows
}

/// The names in a cell.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The path in a row's first cell, without `src/`.
fn part(row: &[String]) -> String {
    let path = row[0].trim_matches('`');
    path.strip_prefix("src/").unwrap_or_default().to_owned()
}

fn manifest(part: &str) -> Table {
    let path =
        if part.is_empty() { root().join("Cargo.toml") } else { root().join("src").join(part).join("Cargo.toml") };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).parse().unwrap()
}

fn folders(of: &Path) -> Vec<PathBuf> {
    fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

fn files(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries.filter(|path| path.is_file()).collect();
    let inner = folders(of).into_iter().filter(|folder| !folder.ends_with("node_modules"));
    all.extend(inner.flat_map(|folder| files(&folder)));
    all
}

fn sources(of: &Path) -> Vec<PathBuf> {
    files(of).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn a_crate_uses_those_that_its_row_names_and_unsafe_is_in_ring_alone() {
    for row in rows("crate") {
        let part = part(&row);
        let manifest = manifest(&part);
        let dependencies = manifest.get("dependencies").and_then(|value| value.as_table());
        let used = dependencies.into_iter().flat_map(Table::keys).filter_map(|name| name.strip_prefix("coralmux-"));
        assert_eq!(used.map(str::to_owned).collect::<BTreeSet<_>>(), names(&row[2]), "{}", row[0]);
        let forbidden = manifest["lints"].get("workspace").is_some_and(|value| value.as_bool() == Some(true));
        assert_eq!(forbidden, part != "ring", "{}", row[0]);
    }
    assert_eq!(manifest("")["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn imports_of_the_relay_point_down_the_list() {
    let crates: BTreeSet<_> = rows("crate").iter().map(|row| part(row)).collect();
    let order: Vec<_> = rows("folder").iter().map(|row| part(row)).collect();
    let there = folders(&root().join("src"));
    let there: BTreeSet<_> = there.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let named: BTreeSet<_> = order.iter().chain(&crates).filter(|part| !part.is_empty()).cloned().collect();
    assert_eq!(named, there);
    for (index, folder) in order.iter().enumerate() {
        for path in sources(&root().join("src").join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            for behind in text.split("crate::").skip(1) {
                let name: String = behind.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let right = match name.as_str() {
                    "agent" | "client" => folder == "demo",
                    name if crates.contains(name) => true,
                    name => order.iter().position(|other| other == name).is_some_and(|other| other >= index),
                };
                assert!(right, "{} imports {name}", path.display());
            }
        }
    }
}

/// Whether `name` is a file or a path in Rust. Other names are not looked up: they may be of other languages or programs.
fn is_looked_up(name: &str) -> bool {
    let plain = |also: &[char]| name.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(&c));
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    let is_file = matches!(extension, Some("rs" | "py" | "mjs" | "js" | "json")) && plain(&['/', '.', '_', '-']);
    is_file || name.contains("::") && plain(&[':', '_'])
}

#[test]
fn what_the_text_names_is_in_the_sources() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let files: Vec<_> =
        ["src", "tests", "clients", "loadtest", "benches", "deploy"].map(|of| files(&root().join(of))).concat();
    let code: String = sources(&root().join("src")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let words: BTreeSet<_> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let names: BTreeSet<_> = names(&text).into_iter().filter(|name| is_looked_up(name)).collect();
    assert!(names.len() > 100, "{}", names.len());
    let is_there = |name: &String| match name.contains("::") {
        true => name.split("::").all(|part| words.contains(part)),
        false => files.iter().any(|path| path.ends_with(name)),
    };
    let gone: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}
