//! The engine's image, made in memory from the running binary: one static file FROM scratch, as a `docker save` archive.
//!
//! Names it puts in the world: tag `rmqctl/engine:<version>-<first 8 hex digits of the content hash>`, label
//! `io.rmqctl.engine.sha256`. A loaded tag is never rebuilt, so several versions live side by side.
//! The archive's form: `moby/docker-image-spec: v1.2.md` (manifest.json, a config, one `layer.tar` a layer).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{RuntimeError, label};
use crate::topology::{CONTAINER_BINARY, CONTAINER_STORE, CONTAINER_UID};

/// Counts changes of the image's own layout below, so that the same binary in a new layout gets a new tag.
const LAYOUT: &str = "layout 2";

/// Counts changes of what an engine writes that engines before cannot open. Files are RocketMQ's own, so there was none yet; an image
/// without the label is of the first.
pub const STORE_FORMAT: u32 = 1;

/// What is read of the binary at once while it is hashed. All of it, some 28 MB, would cost every command more than the hash does.
const PIECE: usize = 256 << 10;

/// The running binary, looked at and hashed.
pub struct Engine {
    /// Open since it was hashed: what is read later is what was hashed.
    binary: File,
    /// Hex sha256 over the binary and the image's layout.
    pub sha256: String,
    /// Docker's name of the architecture the binary is for (`amd64`), or why it cannot be a container's only file.
    arch: Result<&'static str, String>,
    /// The binary's path, for messages.
    shown: String,
}

impl Engine {
    /// Looks at the running binary. Costs one hash of the file; run it where blocking is allowed.
    pub fn read() -> Result<Engine, RuntimeError> {
        let shown = std::env::current_exe().map_or("rmqctl".into(), |p| p.display().to_string());
        let opened = File::open(running_binary()).and_then(|binary| Engine::of(binary, &shown));
        opened.map_err(|e| refused(&shown, e, HINT))
    }

    fn of(binary: File, shown: &str) -> std::io::Result<Engine> {
        let mut hash = Sha256::new();
        hash.update(LAYOUT);
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        let mut arch = None;
        loop {
            let count = binary.read_at(&mut piece, at)?;
            let read = &piece[..count];
            // Linkers put the program headers right behind the first one.
            arch.get_or_insert_with(|| static_elf(read));
            if count == 0 {
                break;
            }
            hash.update(read);
            at += count as u64;
        }
        Ok(Engine {
            binary,
            sha256: hex(&hash.finalize()),
            arch: arch.unwrap_or_else(|| static_elf(&[])),
            shown: shown.to_owned(),
        })
    }

    /// The binary itself.
    pub fn bytes(&self) -> Result<Bytes, RuntimeError> {
        let read = || {
            let len = usize::try_from(self.binary.metadata()?.len()).unwrap_or(usize::MAX);
            let mut bytes = vec![0; len];
            self.binary.read_exact_at(&mut bytes, 0)?;
            Ok::<_, std::io::Error>(bytes.into())
        };
        read().map_err(|e| refused(&self.shown, e, HINT))
    }

    /// `rmqctl/engine:0.1.0-1a2b3c4d`.
    pub fn tag(&self) -> String {
        format!(
            "rmqctl/engine:{}-{}",
            env!("CARGO_PKG_VERSION"),
            &self.sha256[..8]
        )
    }

    /// Refuses what cannot be an image's only file; else the architecture that the image is for.
    pub fn can_be_image(&self) -> Result<&'static str, RuntimeError> {
        match &self.arch {
            Ok(arch) => Ok(arch),
            Err(reason) => Err(refused(&self.shown, reason, HINT)),
        }
    }

    /// Refuses what cannot be an image's only file, and a daemon that cannot run this binary.
    pub fn fits(&self, os: &str, arch: &str) -> Result<(), RuntimeError> {
        let ours = self.can_be_image()?;
        if os == "linux" && arch == ours {
            return Ok(());
        }
        let reason = format!("it is for linux/{ours}, the daemon runs {os}/{arch}");
        let hint = format!(
            "build rmqctl for linux/{arch}, or build the image by hand: docker build -f broker-engine/Dockerfile ."
        );
        Err(refused(&self.shown, reason, &hint))
    }

    /// The image as the chunks of a `docker load` archive.
    pub fn archive(&self) -> Result<Vec<Bytes>, RuntimeError> {
        let layer = layer(self.bytes()?);
        let mut hash = Sha256::new();
        layer.iter().for_each(|part| hash.update(part));
        let config = self.config(&hex(&hash.finalize())).to_string();
        let id = hex(&Sha256::digest(config.as_bytes()));
        let config_name = format!("{id}.json");
        let layer_name = "layer/layer.tar";
        let manifest = json!([{
            "Config": config_name, "RepoTags": [self.tag()], "Layers": [layer_name],
        }])
        .to_string();

        let mut out = Vec::new();
        file(&mut out, &config_name, 0o644, Bytes::from(config));
        let layer_len: usize = layer.iter().map(Bytes::len).sum();
        out.push(header(
            layer_name,
            layer_len as u64,
            0o644,
            0,
            tar::EntryType::Regular,
        ));
        out.extend(layer);
        out.push(padding(layer_len));
        file(&mut out, "manifest.json", 0o644, Bytes::from(manifest));
        out.push(Bytes::from_static(&[0; 1024]));
        Ok(out)
    }

    /// The image's config: what `docker image inspect` shows. It holds no time, so that equal content is an equal image.
    fn config(&self, layer_sha256: &str) -> serde_json::Value {
        const SECOND: u64 = 1_000_000_000;
        json!({
            "architecture": self.arch.as_ref().copied().unwrap_or_default(),
            "os": "linux",
            "config": {
                "User": format!("{CONTAINER_UID}:{CONTAINER_UID}"),
                "Entrypoint": [CONTAINER_BINARY],
                "Cmd": ["engine", "--help"],
                "WorkingDir": "/",
                "StopSignal": "SIGTERM",
                "Labels": {
                    label::ENGINE_SHA256: self.sha256,
                    label::VERSION: env!("CARGO_PKG_VERSION"),
                    label::STORE_FORMAT: STORE_FORMAT.to_string(),
                },
                // The engine asks itself over the wire; it reads from /proc/1/cmdline what it is and where it listens.
                // `up` does not wait for this (it asks from outside), so it may be rare and cheap.
                "Healthcheck": {
                    "Test": ["CMD", CONTAINER_BINARY, "engine", "health"],
                    "Interval": 30 * SECOND,
                    "Timeout": 5 * SECOND,
                    "StartPeriod": 10 * SECOND,
                    "Retries": 3,
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_sha256}")]},
            "history": [{"created_by": "rmqctl", "comment": "the running rmqctl binary, FROM scratch"}],
        })
    }
}

/// Path of the file that runs, which still opens it when a rebuild has replaced it.
pub fn running_binary() -> PathBuf {
    let path = PathBuf::from("/proc/self/exe");
    match path.exists() {
        true => path,
        false => std::env::current_exe().unwrap_or(path),
    }
}

/// The one layer: the binary, and the directories that volumes are mounted over ([`crate::topology`] names them). A fresh volume
/// takes the owner of the directory it covers, which is how an engine without root can write its store.
fn layer(binary: Bytes) -> Vec<Bytes> {
    let mut out = Vec::new();
    for made in ["/etc/rmq", CONTAINER_STORE] {
        // Parents first, as an archive must have them.
        let mut parents: Vec<&Path> = Path::new(made).ancestors().collect();
        parents.retain(|dir| *dir != Path::new("/"));
        for dir in parents.into_iter().rev() {
            let name = format!("{}/", dir.display());
            let (mode, owner) = match name.strip_suffix('/') == Some(CONTAINER_STORE) {
                true => (0o750, CONTAINER_UID),
                false => (0o755, 0),
            };
            let kind = tar::EntryType::Directory;
            out.push(header(&name[1..], 0, mode, owner, kind));
        }
    }
    file(&mut out, &CONTAINER_BINARY[1..], 0o755, binary);
    out.push(Bytes::from_static(&[0; 1024]));
    out
}

const HINT: &str = "build it static: cargo build --release in the project's directory (its .cargo/config.toml sets +crt-static), \
                    or run the nodes as processes: --runtime process";

fn refused(binary: &str, reason: impl std::fmt::Display, hint: &str) -> RuntimeError {
    RuntimeError::Image {
        binary: binary.into(),
        reason: reason.to_string(),
        hint: hint.into(),
    }
}

/// Docker's name of the architecture of a static 64-bit little-endian ELF program, or why it is none.
fn static_elf(bytes: &[u8]) -> Result<&'static str, String> {
    const PROGRAM_INTERPRETER: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    // e_ident: magic, class 2 = 64 bit, data 1 = little endian.
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("it is not a 64-bit Linux program".into());
    }
    let arch = match u16_at(18) {
        Some(0x3E) => "amd64",
        Some(0xB7) => "arm64",
        other => {
            return Err(format!(
                "its machine number {other:?} is neither x86-64 nor aarch64"
            ));
        }
    };
    let short = || "its program headers are cut short".to_string();
    let start = u64_at(32).ok_or_else(short)? as usize;
    let size = u16_at(54).ok_or_else(short)? as usize;
    let count = u16_at(56).ok_or_else(short)? as usize;
    for i in 0..count {
        let at = size.checked_mul(i).and_then(|o| o.checked_add(start));
        let kind = at
            .filter(|at| *at <= bytes.len())
            .and_then(u32_at)
            .ok_or_else(short)?;
        if kind == PROGRAM_INTERPRETER {
            return Err(
                "it is dynamically linked, and an image FROM scratch has no libraries".into(),
            );
        }
    }
    Ok(arch)
}

/// A tar with these files, uncompressed, for an upload into a container: name relative to the upload's path, and text.
pub fn config_tar(files: &[(&str, &str)]) -> Bytes {
    let mut out = Vec::new();
    for (name, text) in files {
        file(
            &mut out,
            name,
            0o644,
            Bytes::copy_from_slice(text.as_bytes()),
        );
    }
    out.push(Bytes::from_static(&[0; 1024]));
    out.concat().into()
}

/// A tar with one directory that is the engine's user's, for an upload at `/`.
pub fn owned_dir_tar(dir: &Path) -> Bytes {
    let name = format!("{}/", dir.display());
    let kind = tar::EntryType::Directory;
    let entry = header(name.trim_start_matches('/'), 0, 0o750, CONTAINER_UID, kind);
    [entry, Bytes::from_static(&[0; 1024])].concat().into()
}

fn file(out: &mut Vec<Bytes>, name: &str, mode: u32, content: Bytes) {
    let len = content.len();
    out.push(header(name, len as u64, mode, 0, tar::EntryType::Regular));
    out.push(content);
    out.push(padding(len));
}

fn header(name: &str, size: u64, mode: u32, owner: u64, kind: tar::EntryType) -> Bytes {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(name)
        .expect("names in our archives are short and relative");
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    header.set_entry_type(kind);
    header.set_cksum();
    Bytes::copy_from_slice(header.as_bytes())
}

/// Text of the one file in an archive as the daemon sends it.
pub fn first_file(archive: &[u8]) -> std::io::Result<String> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive
        .entries()?
        .next()
        .ok_or_else(|| std::io::Error::other("the archive is empty"))??;
    std::io::read_to_string(&mut entry)
}

/// Zeros up to the next multiple of 512.
fn padding(len: usize) -> Bytes {
    static ZEROS: [u8; 512] = [0; 512];
    Bytes::from_static(&ZEROS[..len.next_multiple_of(512) - len])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, b| {
        write!(out, "{b:02x}").expect("a String takes all that is written");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn engine(bytes: &[u8]) -> Engine {
        let mut binary = tempfile::tempfile().unwrap();
        binary.write_all(bytes).unwrap();
        Engine {
            sha256: "0123456789abcdef".into(),
            arch: Ok("amd64"),
            ..Engine::of(binary, "rmqctl").unwrap()
        }
    }

    #[test]
    fn a_binary_is_hashed_with_the_layout_however_long_it_is() {
        let long: Vec<u8> = (0..PIECE * 2 + 3).map(|n| n as u8).collect();
        let mut binary = tempfile::tempfile().unwrap();
        binary.write_all(&long).unwrap();
        let engine = Engine::of(binary, "rmqctl").unwrap();
        let hash = Sha256::new().chain_update(LAYOUT).chain_update(&long);
        assert_eq!(engine.sha256, hex(&hash.finalize()));
        assert_eq!(engine.bytes().unwrap(), long);
        assert!(
            engine
                .can_be_image()
                .unwrap_err()
                .to_string()
                .contains("not a 64-bit")
        );
    }

    fn entries(tar: &[u8]) -> Vec<(String, u32, u64, Vec<u8>)> {
        tar::Archive::new(tar)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                let header = entry.header();
                let name = entry.path().unwrap().display().to_string();
                (name, header.mode().unwrap(), header.uid().unwrap(), content)
            })
            .collect()
    }

    #[test]
    fn the_archive_is_one_layer_whose_hash_the_config_names() {
        let archive = engine(b"a static program").archive().unwrap().concat();
        let files = entries(&archive);
        let by_name = |name: &str| &files.iter().find(|f| f.0 == name).unwrap().3;
        let manifest: serde_json::Value = serde_json::from_slice(by_name("manifest.json")).unwrap();
        assert_eq!(
            manifest[0]["RepoTags"][0],
            format!("rmqctl/engine:{}-01234567", env!("CARGO_PKG_VERSION"))
        );
        let config = by_name(manifest[0]["Config"].as_str().unwrap());
        let config: serde_json::Value = serde_json::from_slice(config).unwrap();
        let layer = by_name("layer/layer.tar");
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", hex(&Sha256::digest(layer)))
        );
        let layer: Vec<_> = entries(layer)
            .into_iter()
            .map(|(n, m, u, c)| (n, m, u, c.len()))
            .collect();
        assert_eq!(
            layer,
            [
                ("etc/".to_string(), 0o755, 0, 0),
                ("etc/rmq/".to_string(), 0o755, 0, 0),
                ("var/".to_string(), 0o755, 0, 0),
                ("var/lib/".to_string(), 0o755, 0, 0),
                ("var/lib/rmq/".to_string(), 0o755, 0, 0),
                ("var/lib/rmq/store/".to_string(), 0o750, CONTAINER_UID, 0),
                ("rmqctl".to_string(), 0o755, 0, 16),
            ]
        );
    }

    #[test]
    fn a_file_that_was_uploaded_is_read_back() {
        let archive = config_tar(&[("a.properties", "brokerId=0\n")]);
        assert_eq!(first_file(&archive).unwrap(), "brokerId=0\n");
        assert!(first_file(&[0; 1024]).is_err());
    }

    #[test]
    fn a_program_with_an_interpreter_or_no_program_is_refused() {
        let mut elf = vec![0u8; 120];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 0x3E;
        elf[32] = 64; // program headers start
        elf[54] = 56; // size of one
        elf[56] = 1; // count
        assert_eq!(static_elf(&elf), Ok("amd64"));
        elf[18] = 0xB7;
        assert_eq!(static_elf(&elf), Ok("arm64"));
        elf[64] = 3;
        assert!(static_elf(&elf).unwrap_err().contains("dynamically linked"));
        for len in 0..64 {
            assert!(static_elf(&elf[..len]).is_err(), "{len} bytes");
        }
        assert!(
            static_elf(b"#!/bin/sh\n")
                .unwrap_err()
                .contains("not a 64-bit")
        );
    }

    #[test]
    fn an_engine_for_another_architecture_is_refused_with_what_to_build() {
        let e = engine(b"");
        assert!(e.fits("linux", "amd64").is_ok());
        let refused = e.fits("linux", "arm64").unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("linux/amd64, the daemon runs linux/arm64"),
            "{refused}"
        );
        assert!(refused.hint().unwrap().contains("broker-engine/Dockerfile"));
    }
}
