//! Makes what the relay serves of `src/phone`: scripts and style without comments, indentation and line breaks. Names
//! stay, so that each file is still a module of its own. `tests/interop/node/vendor.test.mjs` proves that what is served
//! means what the source says.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const SOURCES: &str = "../phone";
/// It is minified where it is made, and beyond what `minifier` understands.
const MADE: &str = "markdown-it.js";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCES}");
    let served = Path::new(&env::var("OUT_DIR")?).join("phone");
    fs::create_dir_all(&served)?;
    for entry in fs::read_dir(SOURCES)? {
        let source = entry?.path();
        let name = source.file_name().expect("an entry of a folder has a name");
        let target = served.join(name);
        match source.extension().and_then(|extension| extension.to_str()) {
            Some("js") if name != MADE => {
                let text = fs::read_to_string(&source)?;
                let script = minifier::js::minify(&text).map_err(|fault| format!("{}: {fault}", source.display()))?;
                fs::write(&target, script.to_string())?;
            }
            Some("css") => {
                let text = fs::read_to_string(&source)?;
                let style = minifier::css::minify(&text).map_err(|fault| format!("{}: {fault}", source.display()))?;
                fs::write(&target, style.to_string())?;
            }
            _ => fs::write(&target, fs::read(&source)?)?,
        }
    }
    Ok(())
}
