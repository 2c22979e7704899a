//! Small JSON tables (`config/*.json`): written whole to a partial file, synced, renamed, the directory synced.
//! A `.bak` of the last good one is kept, as Java reads it when the first is empty or bad.

use crate::disk::FileSystem;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// A table that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
#[allow(missing_docs)]
pub struct TableError {
    pub action: &'static str,
    pub path: String,
    pub source: std::io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Error) -> TableError {
    let path = path.display().to_string();
    move |source| TableError {
        action,
        path,
        source,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes the table so that a crash leaves the old or the new text, never a mixture.
pub fn write(path: &Path, text: &str) -> Result<(), TableError> {
    write_on(&FileSystem::Real, path, text)
}

/// As `write`, on a file system of choice.
pub fn write_on(fs: &FileSystem, path: &Path, text: &str) -> Result<(), TableError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs.make_dir_synced(dir)
        .map_err(failed("making directory", dir))?;
    let partial = with_suffix(path, ".partial");
    fs.write_file(&partial, text.as_bytes())
        .map_err(failed("writing table", &partial))?;
    // Between the two renames the table exists only as `.bak`, which `read` falls back to, as Java does.
    if fs.exists(path).map_err(failed("looking for table", path))? {
        let bak = with_suffix(path, ".bak");
        fs.rename(path, &bak)
            .map_err(failed("keeping the old table as", &bak))?;
    }
    fs.rename(&partial, path)
        .map_err(failed("replacing table", path))?;
    fs.sync_dir(dir).map_err(failed("syncing directory", dir))
}

/// The table's text; the `.bak` when the file is missing, empty or not accepted by `valid`; `None` when there is neither.
pub fn read(path: &Path, valid: impl Fn(&str) -> bool) -> Result<Option<String>, TableError> {
    read_on(&FileSystem::Real, path, valid)
}

/// As `read`, on a file system of choice.
pub fn read_on(
    fs: &FileSystem,
    path: &Path,
    valid: impl Fn(&str) -> bool,
) -> Result<Option<String>, TableError> {
    for candidate in [path.to_owned(), with_suffix(path, ".bak")] {
        match fs.read_file(&candidate) {
            Ok(bytes) => {
                if let Ok(text) = String::from_utf8(bytes)
                    && !text.trim().is_empty()
                    && valid(&text)
                {
                    return Ok(Some(text));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("reading table", &candidate)(error)),
        }
    }
    Ok(None)
}
