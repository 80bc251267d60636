//! The names and forms under which the page's files are served. What a page loads when it starts has a hash of its content
//! in its name, so that a browser keeps it for good, and never mixes two versions. What can be compressed is compressed
//! here, as well as it can be, because it is done once.

use crate::Outcome;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// What gets a hash: files after those that they name, and together those that name each other, which have one hash of them
/// all. Everything else keeps its name, because a page that is open may ask for it after an upgrade, or because something
/// outside of the page names it.
const HASHED: [&[&str]; 3] = [&["style.css"], &["markdown-it.js"], &["app.js", "later.js"]];
/// What names other files.
const NAMING: [&str; 4] = ["index.html", "app.js", "later.js", "sw.js"];
const WORKER: &str = "sw.js";
/// What stands in the worker for a hash of all files.
const VERSION: &str = "VERSION_OF_THE_PAGE";
const PACKED: [&str; 6] = ["css", "html", "js", "svg", "txt", "webmanifest"];

/// Writes `files`, by their names, into `folder`, and the table of them that `phone.rs` includes.
pub(crate) fn write(mut files: BTreeMap<String, Vec<u8>>, folder: &Path) -> Outcome<()> {
    let mut lasting = BTreeSet::new();
    for names in HASHED {
        let content: Vec<u8> = names.iter().filter_map(|name| files.get(*name)).flatten().copied().collect();
        let mut renamed = Vec::new();
        for name in names {
            let (stem, extension) = name.rsplit_once('.').ok_or("a name without a dot")?;
            let hashed = format!("{stem}.{}.{extension}", hash(&content));
            rename(&mut files, name, &hashed)?;
            renamed.push((name, hashed));
        }
        for (name, hashed) in renamed {
            let content = files.remove(*name).ok_or_else(|| format!("there is no {name}"))?;
            files.insert(hashed.clone(), content);
            lasting.insert(hashed);
        }
    }
    let all: Vec<u8> = files.iter().flat_map(|(name, content)| [name.as_bytes(), content].concat()).collect();
    let worker = files.get_mut(WORKER).ok_or("there is no worker")?;
    let text = std::str::from_utf8(worker)?;
    if text.matches(VERSION).count() != 1 {
        return Err(format!("{WORKER} does not say {VERSION} once").into());
    }
    *worker = text.replace(VERSION, &hash(&all)).into_bytes();

    let mut table = "[\n".to_owned();
    for (name, content) in &files {
        let path = match name.as_str() {
            "index.html" => "/".to_owned(),
            WORKER => format!("/{WORKER}"),
            name => format!("/phone/{name}"),
        };
        write!(table, "File {{ path: {path:?}, lasting: {}, ", lasting.contains(name))?;
        let is_packed = name.rsplit_once('.').is_some_and(|(_, extension)| PACKED.contains(&extension));
        let packed = if is_packed { [brotli(content)?, gzip(content)?] } else { [Vec::new(), Vec::new()] };
        for (field, form) in ["plain", "brotli", "gzip"].into_iter().zip([content].into_iter().chain(&packed)) {
            let file = folder.join(format!("{name}.{field}"));
            fs::write(&file, form)?;
            write!(table, "{field}: include_bytes!({:?}), ", file.to_str().ok_or("a folder is not UTF-8")?)?;
        }
        table += "},\n";
    }
    fs::write(folder.with_file_name("files.rs"), table + "]")?;
    Ok(())
}

/// Has all that name a file name it anew: the page or a script, and the worker, which keeps it.
fn rename(files: &mut BTreeMap<String, Vec<u8>>, name: &str, hashed: &str) -> Outcome<()> {
    let mut named = 0;
    for user in NAMING {
        let Some(text) = files.get_mut(user) else { continue };
        let old = String::from_utf8(std::mem::take(text)).map_err(|fault| format!("{user}: {fault}"))?;
        let new = ["phone/", "./"]
            .iter()
            .fold(old.clone(), |text, folder| text.replace(&format!("{folder}{name}"), &format!("{folder}{hashed}")));
        named += usize::from(new != old);
        *text = new.into_bytes();
    }
    if named < 2 {
        return Err(format!("{name} is named by {named} files").into());
    }
    Ok(())
}

/// The beginning of its SHA-256: 32 bits tell apart the versions that a browser meets.
fn hash(content: &[u8]) -> String {
    Sha256::digest(content)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn brotli(content: &[u8]) -> Outcome<Vec<u8>> {
    let mut packed = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams { size_hint: content.len(), ..Default::default() };
    brotli::BrotliCompress(&mut &*content, &mut packed, &parameters)?;
    Ok(packed)
}

fn gzip(content: &[u8]) -> Outcome<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(content)?;
    Ok(packed.finish()?)
}
