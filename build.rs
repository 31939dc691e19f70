//! Compiles the interpreter blob with plain `rustc`, checks it, and flattens it to the bytes that `snap` embeds.

use object::{Object, ObjectSection};
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The largest blob that the host side accepts.
const LIMIT: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let sources = root.join("parasite-blob");
    println!("cargo::rerun-if-changed={}", sources.display());

    rustc(&library("protocol", &sources.join("protocol/src/lib.rs")), &[], &out)?;
    rustc(&library("parasite_blob", &sources.join("src/lib.rs")), &["protocol"], &out)?;
    let program = out.join("interpreter.elf");
    rustc(&program_args(&sources, &program), &["parasite_blob", "protocol"], &out)?;
    refuse_vector_code(&out.join("interpreter.s"))?;
    fs::write(out.join("interpreter.bin"), flatten(&program)?)?;
    Ok(())
}

/// Arguments that every part is compiled with.
fn common(name: &str, source: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["--crate-name".into(), name.into(), source.into()];
    args.extend(["--edition=2024", "--target=x86_64-unknown-linux-gnu", "--cap-lints=allow"].map(OsString::from));
    for option in [
        "panic=abort",
        "opt-level=2",
        "codegen-units=1",
        "relocation-model=pic",
        "force-unwind-tables=no",
        "overflow-checks=no",
        "debug-assertions=no",
        "no-vectorize-loops",
        "no-vectorize-slp",
    ] {
        args.extend(["-C".into(), option.into()]);
    }
    args
}

fn library(name: &str, source: &Path) -> Vec<OsString> {
    let mut args = common(name, source);
    args.push("--crate-type=rlib".into());
    args
}

fn program_args(sources: &Path, program: &Path) -> Vec<OsString> {
    let mut args = common("interpreter", &sources.join("link/interpreter.rs"));
    args.extend(["--crate-type=bin", "-Clto=fat", "-Ctarget-feature=+crt-static"].map(OsString::from));
    for option in [
        "-nostartfiles",
        "-nostdlib",
        "-static-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,--no-dynamic-linker",
    ] {
        args.push(format!("-Clink-arg={option}").into());
    }
    args.push(format!("-Clink-arg=-Wl,-T,{}", sources.join("link/blob.ld").display()).into());
    args.push(format!("--emit=asm,link={}", program.display()).into());
    args
}

/// Runs the compiler that cargo uses.
fn rustc(args: &[OsString], uses: &[&str], out: &Path) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(env::var_os("RUSTC").ok_or("no RUSTC")?);
    command.args(args).arg("--out-dir").arg(out).arg("-L").arg(out);
    for name in uses {
        command.arg("--extern").arg(format!("{name}={}", out.join(format!("lib{name}.rlib")).display()));
    }
    let result = command.output()?;
    if result.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", result.status, String::from_utf8_lossy(&result.stderr)).into())
}

/// The target's vector state is not saved while the blob runs in it.
fn refuse_vector_code(assembly: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(assembly)?;
    let vector = |line: &&str| ["%xmm", "%ymm", "%zmm", "%mm", "%st", "%k0"].iter().any(|name| line.contains(name));
    match text.lines().find(vector) {
        Some(line) => Err(format!("vector code in the blob: {}", line.trim()).into()),
        None => Ok(()),
    }
}

/// The bytes of the only section that is loaded.
fn flatten(program: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let bytes = fs::read(program)?;
    let elf = object::File::parse(&*bytes)?;
    let text = elf.section_by_name(".text").ok_or("the blob has no code")?;
    // The linker puts an empty symbol table in front of it; the blob runs at any address of this alignment.
    if elf.entry() != text.address() || text.address() % text.align() != 0 {
        return Err(format!("the entry {:#x} is not the start {:#x} of the code", elf.entry(), text.address()).into());
    }
    let code = text.uncompressed_data()?.into_owned();
    if code.len() > LIMIT {
        return Err(format!("the blob has {} bytes, more than {LIMIT}", code.len()).into());
    }
    Ok(code)
}
