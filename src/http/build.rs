//! Makes what the relay serves of `src/phone`: the modules as one script with short names inside, without comments and
//! white space; the style without comments and line breaks; everything else as it is. So it is fetched in one go, and
//! compresses as one. `tests/interop/node/vendor.test.mjs` proves that what is served means what the sources say.
//! `build/served.rs` says under which names, and compressed.

#[path = "build/served.rs"]
mod served;

use oxc_allocator::Allocator;
use oxc_codegen::{Codegen, CodegenOptions};
use oxc_mangler::Mangler;
use oxc_parser::Parser;
use oxc_semantic::SemanticBuilder;
use oxc_span::SourceType;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::{env, fs};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SOURCES: &str = "../phone";
/// The module that begins: what it imports is put before it, in the order in which a browser would run it.
const FIRST: &str = "app.js";
/// What the page loads when it is connected: its modules are those that the first script has not, of which it imports the
/// others.
const LATER: &str = "later.js";
/// The service worker is a script of its own.
const WORKER: &str = "sw.js";
/// Made small where they are made, and files of their own.
const MADE: [&str; 2] = ["markdown-it.js", "qr.js"];

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let folder = Path::new(&env::var("OUT_DIR")?).join("phone");
    fs::create_dir_all(&folder)?;
    let mut first = Bundle::default();
    first.add(FIRST)?;
    let mut later = Bundle { outside: first.names.clone(), ..Bundle::default() };
    later.add(LATER)?;
    let shared = later.shared.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let scripts = [
        (FIRST, format!("{}{}export {{{shared}}};", first.imports, first.text)),
        (LATER, format!("import {{{shared}}} from './{FIRST}';{}{}", later.imports, later.text)),
    ];
    let mut files = BTreeMap::new();
    for (name, script) in scripts {
        files.insert(name.to_owned(), minified(&script)?.into_bytes());
    }
    for entry in fs::read_dir(SOURCES)? {
        let source = entry?.path();
        let name = source.file_name().and_then(|name| name.to_str()).ok_or("a file has no name")?;
        let content = match source.extension().and_then(|extension| extension.to_str()) {
            Some("js") if name == WORKER => minified(&fs::read_to_string(&source)?)?.into_bytes(),
            Some("js") if first.names.contains(name) || later.names.contains(name) => continue,
            Some("js") if !MADE.contains(&name) => return Err(format!("{name} is imported by nobody").into()),
            Some("css") => {
                let text = fs::read_to_string(&source)?;
                let style = minifier::css::minify(&text).map_err(|fault| format!("{name}: {fault}"))?;
                style.to_string().into_bytes()
            }
            _ => fs::read(&source)?,
        };
        files.insert(name.to_owned(), content);
    }
    served::write(files, &folder)
}

/// Modules, one after the other. Names at their top level are the same everywhere: an import needs no code, and a name
/// that two modules have is an error.
#[derive(Default)]
struct Bundle {
    names: BTreeSet<String>,
    /// Modules of another bundle, and what is used of them.
    outside: BTreeSet<String>,
    shared: BTreeSet<String>,
    /// Of what is a file of its own.
    imports: String,
    text: String,
}

impl Bundle {
    fn add(&mut self, name: &str) -> Outcome<()> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        let source = fs::read_to_string(Path::new(SOURCES).join(name)).map_err(|fault| format!("{name}: {fault}"))?;
        let mut own = String::new();
        for line in source.lines() {
            if !line.starts_with("import ") {
                // A list of names is what a bundle has for others.
                let inner = line.strip_prefix("export ").filter(|rest| !rest.starts_with('{'));
                own += inner.unwrap_or(line);
                own.push('\n');
                continue;
            }
            let from = line.split_once("} from './").and_then(|(_, from)| from.strip_suffix("';"));
            let from = from.filter(|_| !line.contains(" as "));
            let from = from
                .ok_or_else(|| format!("{name}: an import is one line, `import {{ a, b }} from './c.js';`: {line}"))?;
            if self.outside.contains(from) {
                let names =
                    line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(names, _)| names);
                self.shared.extend(names.split(',').map(|name| name.trim().to_owned()));
            } else if MADE.contains(&from) {
                self.imports += line;
                self.imports.push('\n');
            } else {
                self.add(from)?;
            }
        }
        self.text += &own;
        Ok(())
    }
}

/// A script of the same meaning, with short names for all that is its own.
fn minified(script: &str) -> Outcome<String> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, script, SourceType::mjs()).parse();
    let checked = SemanticBuilder::new().with_check_syntax_error(true).build(&parsed.program);
    if let Some(fault) = parsed.diagnostics.iter().chain(&checked.diagnostics).next() {
        return Err(format!("{:?}", fault.clone().with_source_code(script.to_owned())).into());
    }
    let short = Mangler::new().build(&parsed.program);
    let printer = Codegen::new()
        .with_options(CodegenOptions::minify())
        .with_scoping(Some(short.scoping))
        .with_private_member_mappings(Some(short.class_private_mappings));
    Ok(printer.build(&parsed.program).code)
}
