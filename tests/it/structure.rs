//! The structure that docs/architecture.md describes, read from the sources: who imports whom, where `unsafe` may stand, first lines.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of `src/` and what each may import with `crate::`. What is not listed may import nothing of the crate.
///
/// `image::model` is plain data that knows no kernel; its addresses, ids and enums are the vocabulary of every layer.
const IMPORTS: &[(&str, &[&str])] = &[
    ("sys", &["image::model"]),
    ("proc", &["sys", "image::model"]),
    ("image", &[]),
    ("tracer", &["sys", "proc", "image::model", "fault"]),
    ("parasite", &["tracer", "sys", "proc", "image::model", "fault"]),
    ("resources", &["image::model", "proc", "tracer", "parasite", "sys", "blocker"]),
    ("dump", &["resources", "image", "proc", "tracer", "parasite", "sys", "blocker", "fault", "progress"]),
    ("restore", &["resources", "image", "proc", "tracer", "parasite", "sys", "blocker", "fault", "progress"]),
    ("inspect", &["image"]),
    ("cli", &["dump", "restore", "inspect", "blocker", "progress", "image"]),
    ("blocker", &[]),
    ("progress", &[]),
    ("fault", &[]),
];

/// Where `unsafe` may stand, as prefixes of paths in `src/`.
const UNSAFE: &[&str] = &["sys/", "sys.rs", "tracer/memory", "tracer/inject", "restore/skeleton", "restore/trampoline"];

/// Folders of the workspace whose files must say in the first line what they are for.
const ROOMS: &[&str] = &["src", "parasite-blob", "fixtures/src", "xtask/src", "tests", "benches", "fuzz", "build.rs"];

#[test]
fn modules_import_only_what_the_design_allows() {
    let mut wrong = String::new();
    for (path, text) in product(&["src"]) {
        let Some(module) = module_of(&path) else { continue };
        let allowed = IMPORTS.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, allowed)| allowed);
        for (number, line) in code_lines(&text) {
            let permitted = |path: &str| within(path, &module) || allowed.iter().any(|room| within(path, room));
            for imported in imports(line).into_iter().filter(|path| !permitted(path)) {
                writeln!(wrong, "  {}:{number}: {module} imports {imported}", path.display()).expect("a string");
            }
        }
    }
    assert!(wrong.is_empty(), "imports that the design forbids:\n{wrong}");
}

/// The table of rooms in docs/architecture.md, of which [`IMPORTS`] is the other half.
#[test]
fn the_table_of_rooms_is_that_of_the_design() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let row = |line: &str| {
        let [room, _, imports] = line.trim_matches('|').split(" | ").collect::<Vec<_>>()[..] else { return None };
        let room = room.trim().strip_prefix("`src/")?.trim_end_matches('`').to_owned();
        let imports = imports.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        Some((room, imports))
    };
    let described: BTreeSet<_> = text.lines().filter(|line| line.starts_with("| `src/")).filter_map(row).collect();
    let designed = IMPORTS.iter().map(|(room, imports)| {
        let imports = imports.iter().filter(|room| **room != "image::model").map(|room| (*room).to_owned());
        ((*room).to_owned(), imports.collect())
    });
    assert_eq!(described, designed.collect::<BTreeSet<_>>());
}

#[test]
fn the_image_knows_no_kernel() {
    const KERNEL: &[&str] = &["nix", "libc", "linux_raw_sys", "procfs", "std::process::Command"];
    let mut wrong = String::new();
    for (path, text) in sources(&["src/image", "src/inspect"]) {
        for (number, line) in code_lines(&text) {
            for interface in KERNEL.iter().filter(|interface| contains_word(line, interface)) {
                writeln!(wrong, "  {}:{number}: {interface}", path.display()).expect("a string");
            }
        }
    }
    assert!(wrong.is_empty(), "kernel interfaces in image or inspect:\n{wrong}");
}

#[test]
fn unsafe_stands_only_where_the_design_allows() {
    let mut wrong = String::new();
    for (path, text) in sources(&["src"]) {
        let inside = path.strip_prefix(root().join("src")).expect("a path in src").to_string_lossy().into_owned();
        if UNSAFE.iter().any(|allowed| inside.starts_with(allowed)) {
            continue;
        }
        for (number, line) in code_lines(&text).filter(|(_, line)| contains_word(line, "unsafe")) {
            writeln!(wrong, "  src/{inside}:{number}: {}", line.trim()).expect("a string");
        }
    }
    assert!(wrong.is_empty(), "unsafe outside its rooms:\n{wrong}");
    let root = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    assert!(root.contains("#![deny(unsafe_code)]"), "src/lib.rs does not deny unsafe code");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = sources(ROOMS)
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "the first line does not start with `//! `:\n  {}", silent.join("\n  "));
}

#[test]
fn no_file_is_too_large() {
    let large: Vec<String> = sources(ROOMS)
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 800)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(large.is_empty(), "files of more than 800 lines:\n  {}", large.join("\n  "));
}

/// Links, and files that are named in backticks. `KIND` stands for any.
#[test]
fn what_the_documentation_refers_to_is_there() {
    const FOLDERS: &[&str] = &["src/", "docs/", "tests/", "fixtures/", "benches/", "xtask/", "parasite-blob/"];
    let docs = fs::read_dir(root().join("docs")).expect("docs").flatten().map(|entry| entry.path());
    let mut missing = String::new();
    let mut seen = 0;
    for path in docs.chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name))) {
        let (text, folder) = (fs::read_to_string(&path).expect("a text"), path.parent().expect("a folder"));
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let links = links.filter(|link| !link.contains("://")).map(|link| folder.join(link));
        let code = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let named = code.filter(|name| FOLDERS.iter().any(|folder| name.starts_with(folder)) && !name.contains("KIND"));
        for target in links.chain(named.map(|name| root().join(name))) {
            seen += 1;
            if !target.exists() && !target.with_extension("rs").exists() {
                writeln!(missing, "  {}: {}", path.display(), target.display()).expect("a string");
            }
        }
    }
    assert!(seen > 50, "{seen} references only");
    assert!(missing.is_empty(), "what is referred to and is not there:\n{missing}");
}

#[test]
fn no_room_is_named_for_what_it_is_not() {
    let named: Vec<String> = sources(ROOMS)
        .into_iter()
        .filter(|(path, _)| {
            path.file_stem()
                .is_some_and(|stem| ["util", "utils", "common", "helpers", "misc"].iter().any(|bad| stem == *bad))
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(named.is_empty(), "names that say nothing:\n  {}", named.join("\n  "));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source below these folders, in a fixed order.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = BTreeSet::new();
    folders.iter().for_each(|folder| collect(&root().join(folder), &mut found));
    assert!(!found.is_empty(), "no sources in {folders:?}");
    let read = |path: PathBuf| fs::read_to_string(&path).map(|text| (path, text)).expect("a source");
    found.into_iter().map(read).collect()
}

/// As [`sources`], without the unit tests that have a file of their own.
fn product(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    sources(folders).into_iter().filter(|(path, _)| !is_test(path.strip_prefix(root()).unwrap_or(path))).collect()
}

fn collect(path: &Path, found: &mut BTreeSet<PathBuf>) {
    if path.extension().is_some_and(|extension| extension == "rs") {
        if path.is_file() {
            found.insert(path.to_path_buf());
        }
    } else if let Ok(entries) = fs::read_dir(path) {
        let visible = entries.filter_map(Result::ok).filter(|entry| entry.file_name() != "target");
        visible.for_each(|entry| collect(&entry.path(), found));
    }
}

/// The module of `src/` that a file belongs to; none for the two roots.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = Path::new(inside.components().next()?.as_os_str());
    let module = first.file_stem()?.to_str()?.to_owned();
    (module != "lib" && module != "main").then_some(module)
}

/// Lines with their numbers, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().zip(1..).map(|(line, number)| (number, line.split("//").next().unwrap_or(line)))
}

/// The paths that follow `crate::` in a line, in braces too.
fn imports(line: &str) -> Vec<&str> {
    let end = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let after = line.match_indices("crate::").map(|(at, found)| &line[at + found.len()..]);
    after
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split(',').map(str::trim).collect(),
            None => vec![rest],
        })
        .map(|rest| &rest[..end(rest)])
        .filter(|path| path.starts_with(char::is_lowercase))
        .collect()
}

/// Whether a path is a room or lies in it.
fn within(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        boundary(line[..at].chars().next_back()) && boundary(line[at + word.len()..].chars().next())
    })
}
