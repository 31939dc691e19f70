//! Descriptions made here, good ones and broken ones.

use super::*;

/// Makes a description, type by type.
struct Builder {
    types: Vec<u8>,
    names: Vec<u8>,
    count: u32,
}

impl Builder {
    fn new() -> Self {
        Self { types: Vec::new(), names: vec![0], count: 0 }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.names.len() as u32;
        self.names.extend(name.bytes().chain([0]));
        at
    }

    /// A type: its number.
    fn add(&mut self, (kind, name): (u32, &str), count: u32, to: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        let words = [name, kind << 24 | count, to].into_iter().chain(rest.iter().copied());
        self.types.extend(words.flat_map(u32::to_ne_bytes));
        self.count += 1;
        self.count
    }

    fn int(&mut self) -> u32 {
        self.add((INT, "int"), 0, 4, &[32])
    }

    /// Something with members, or a section with variables.
    fn with(&mut self, kind: (u32, &str), members: &[(&str, u32)]) -> u32 {
        let mut rest = Vec::new();
        for (name, number) in members {
            let name = self.name(name);
            rest.extend(if kind.0 == SECTION { [*number, 0, 4] } else { [name, *number, 0] });
        }
        self.add(kind, members.len() as u32, 8, &rest)
    }

    fn bytes(&self) -> Vec<u8> {
        let (types, names) = (self.types.len() as u32, self.names.len() as u32);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend([24, 0, types, types, names].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend([&self.types[..], &self.names[..]].concat());
        bytes
    }

    #[track_caller]
    fn refused(&self, value: u32, words: &[&str]) {
        let reason = look(&self.bytes(), value).unwrap_err();
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    }
}

#[test]
fn plain_values_and_locks_are_had_again() {
    let mut types = Builder::new();
    let int = types.int();
    let array = types.add((ARRAY, ""), 0, 0, &[int, int, 3]);
    let constant = types.add((CONST, ""), 0, array, &[]);
    let named = types.add((TYPEDEF, "numbers"), 0, constant, &[]);
    let user = types.add((TYPE_TAG, "user"), 0, int, &[]);
    let pointer = types.add((POINTER, ""), 0, user, &[]);
    let nothing = types.add((POINTER, ""), 0, 0, &[]);
    let both = types.with((UNION, ""), &[("all", named), ("at", pointer), ("nothing", nothing)]);
    let lock = types.with((STRUCT, "bpf_spin_lock"), &[("val", int)]);
    let value = types.with((STRUCT, "value"), &[("n", int), ("both", both), ("lock", lock)]);
    let variable = types.add((VARIABLE, "count"), 0, value, &[1]);
    let section = types.with((SECTION, ".data"), &[("", variable)]);
    for value in 0..=section {
        assert_eq!(look(&types.bytes(), value), Ok(()), "{value}");
    }
    types.refused(section + 1, &["names a type that it does not have"]);
}

#[test]
fn what_the_kernel_treats_specially_is_named() {
    for (name, reason) in STRUCTS {
        let mut types = Builder::new();
        let special = types.with((STRUCT, name.iter().map(|byte| *byte as char).collect::<String>().as_str()), &[]);
        let inner = types.with((STRUCT, "inner"), &[("it", special)]);
        let array = types.add((ARRAY, ""), 0, 0, &[inner, inner, 1]);
        let value = types.with((STRUCT, "value"), &[("all", array)]);
        let name = String::from_utf8_lossy(name);
        match reason {
            None => assert_eq!(look(&types.bytes(), value), Ok(()), "{name}"),
            Some(reason) => {
                types.refused(value, &[&format!("the field `it` of `inner` in its values ({name}) {reason}")]);
                types.refused(special, &[&format!("its values ({name}): this {reason}")]);
            }
        }
        // The kernel takes it for such by the name of a struct alone.
        let mut types = Builder::new();
        let plain = types.with((UNION, &name), &[]);
        assert_eq!(look(&types.bytes(), plain), Ok(()));
    }
}

#[test]
fn pointers_of_the_kernel_are_named_by_their_tags() {
    for tag in TAGS.map(|tag| String::from_utf8_lossy(tag).into_owned()) {
        let mut types = Builder::new();
        let task = types.with((STRUCT, "task_struct"), &[]);
        let tagged = types.add((TYPE_TAG, &tag), 0, task, &[]);
        let constant = types.add((CONST, ""), 0, tagged, &[]);
        let pointer = types.add((POINTER, ""), 0, constant, &[]);
        let variable = types.add((VARIABLE, "current"), 0, pointer, &[1]);
        let section = types.with((SECTION, ".bss"), &[("", variable)]);
        types.refused(section, &[&format!("the field `current` of `.bss` in its values ({tag}) is a pointer")]);
    }
}

#[test]
fn circles_and_deep_chains_end() {
    let mut types = Builder::new();
    // Each is a qualifier of the next, the last one of the first.
    const LONG: u32 = 100_000;
    for number in 1..=LONG {
        types.add((CONST, ""), 0, number % LONG + 1, &[]);
    }
    let pointer = types.add((POINTER, ""), 0, 1, &[]);
    assert_eq!(look(&types.bytes(), 1), Ok(()));
    types.refused(pointer, &["ends too early"]);
    // A struct of so many fields of its own type.
    let mut types = Builder::new();
    let members: Vec<_> = (0..60_000).map(|_| ("", 1)).collect();
    types.with((STRUCT, "value"), &members);
    assert_eq!(look(&types.bytes(), 1), Ok(()));
}

#[test]
fn what_is_broken_is_refused_without_panic() {
    let mut types = Builder::new();
    let int = types.int();
    let array = types.add((ARRAY, ""), 0, 0, &[int, int, 3]);
    let pointer = types.add((POINTER, ""), 0, array, &[]);
    let value = types.with((STRUCT, "value"), &[("n", int), ("list", array), ("at", pointer)]);
    let variable = types.add((VARIABLE, "count"), 0, value, &[1]);
    let section = types.with((SECTION, ".data"), &[("", variable)]);
    let whole = types.bytes();
    for len in 0..whole.len() {
        assert!(look(&whole[..len], section).is_err(), "{len}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut broken = whole.clone();
            broken[at] ^= 1 << bit;
            let _ = look(&broken, section);
        }
        let mut broken = whole.clone();
        broken[at..].fill(0xff);
        let _ = look(&broken, section);
    }
    types.add((25, "new"), 0, 0, &[]);
    types.refused(1, &["not of a form that this version knows"]);
}
