//! The entry points of a vdso: the functions in its dynamic symbol table.

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol, SymbolKind};

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its names, without the prefix `__vdso_` and each once: `clock_gettime`.
    pub names: Vec<String>,
    /// Where it begins, from the start of the vdso.
    pub offset: u64,
    /// Bytes that are its own.
    pub len: u64,
}

/// The functions in the order of their offsets; none of what is no vdso.
#[must_use]
pub fn entries(vdso: &[u8]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let Ok(file) = ElfFile64::<Endianness>::parse(vdso) else { return entries };
    let mut symbols: Vec<_> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
        .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?)))
        .filter(|(offset, len, _)| offset.checked_add(*len).is_some_and(|end| end <= vdso.len() as u64))
        .collect();
    symbols.sort_unstable();
    for (offset, len, name) in symbols {
        let name = name.strip_prefix("__vdso_").unwrap_or(name).to_owned();
        match entries.last_mut() {
            Some(last) if last.offset == offset => {
                last.len = last.len.max(len);
                if !last.names.contains(&name) {
                    last.names.push(name);
                }
            }
            Some(_) | None => entries.push(Entry { names: vec![name], offset, len }),
        }
    }
    // What overlaps the next one ends where that begins.
    for at in 1..entries.len() {
        let room = entries[at].offset - entries[at - 1].offset;
        entries[at - 1].len = entries[at - 1].len.min(room);
    }
    entries
}
