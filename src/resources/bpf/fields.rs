//! What the kernel treats specially in the values of a map, found in the description of their type (BTF, Documentation/bpf/btf.rst; kernel/bpf/btf.c,
//! `btf_parse_fields`). The description is what some program has loaded: nothing here counts on more than its bytes, and no type is looked at twice.

/// Whether a map with such values can be had again: there is nothing in them that the kernel treats specially but a lock.
///
/// A lock is had again. Who reads a value finds zero in its place, who writes one leaves it as it is; only programs of the kernel can hold it, and while anybody in the kernel
/// has the map it is refused, or stays with them.
///
/// # Errors
/// Which field cannot be had again, and why.
pub fn look(bytes: &[u8], value: u32) -> Result<(), String> {
    let types =
        Types::parse(bytes).ok_or("the description of its types (BTF) is not of a form that this version knows")?;
    let mut seen = vec![false; types.places.len()];
    let mut left = vec![Place { number: value, owner: b"", field: b"" }];
    while let Some(place) = left.pop() {
        let Some(at) = (place.number as usize).checked_sub(1) else { continue };
        match seen.get_mut(at) {
            Some(seen) if *seen => continue,
            Some(seen) => *seen = true,
            None => return Err("the description of its types (BTF) names a type that it does not have".into()),
        }
        let broken = || "the description of its types (BTF) ends too early".to_owned();
        types.step(place, &mut left).ok_or_else(broken)??;
    }
    Ok(())
}

// BTF_KIND_* of include/uapi/linux/btf.h.
const INT: u32 = 1;
const POINTER: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNCTION: u32 = 12;
const PROTOTYPE: u32 = 13;
const VARIABLE: u32 = 14;
const SECTION: u32 = 15;
const FLOAT: u32 = 16;
const DECLARATION_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// More qualifiers and tags than the kernel takes one upon the other (MAX_RESOLVE_DEPTH of kernel/bpf/btf.c).
const DEPTH: usize = 64;

/// What the kernel knows by the name of its struct, and why it is not had again.
const STRUCTS: [(&[u8], Option<&str>); 10] = [
    (b"bpf_spin_lock", None),
    (b"bpf_res_spin_lock", None),
    (b"bpf_timer", Some("is a timer, and nothing tells when it ends and what it calls")),
    (b"bpf_wq", Some("is work for the kernel, and nothing tells what it calls")),
    (b"bpf_task_work", Some("is work for a task, and nothing tells what it calls")),
    (b"bpf_list_head", Some("is a list of objects of the kernel's programs, which nobody else can read")),
    (b"bpf_list_node", Some("is part of a list of objects of the kernel's programs, which nobody else can read")),
    (b"bpf_rb_root", Some("is a tree of objects of the kernel's programs, which nobody else can read")),
    (b"bpf_rb_node", Some("is part of a tree of objects of the kernel's programs, which nobody else can read")),
    (b"bpf_refcount", Some("counts who in the kernel has the value, which nobody else can read")),
];

/// Tags of what a pointer of the kernel leads to.
const TAGS: [&[u8]; 4] = [b"kptr", b"kptr_untrusted", b"percpu_kptr", b"uptr"];

/// A type that is in the values, and the field that is of it.
#[derive(Clone, Copy)]
struct Place<'a> {
    number: u32,
    /// The struct, union or section that has the field.
    owner: &'a [u8],
    field: &'a [u8],
}

impl Place<'_> {
    fn refused(self, kind: &[u8], reason: &str) -> String {
        let [kind, owner, field] = [kind, self.owner, self.field].map(String::from_utf8_lossy);
        let owner = if owner.is_empty() { "its values".to_owned() } else { format!("`{owner}` in its values") };
        match field.is_empty() {
            true => format!("{owner} ({kind}): this {reason}"),
            false => format!("the field `{field}` of {owner} ({kind}) {reason}"),
        }
    }
}

/// One type.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: &'a [u8],
    kind: u32,
    /// KIND_FLAG.
    flag: bool,
    /// What it refers to, where it refers to another.
    to: u32,
    /// What stands behind its head.
    rest: &'a [u8],
}

struct Types<'a> {
    bytes: &'a [u8],
    names: &'a [u8],
    /// Where in `bytes` each type begins; the first has the number 1.
    places: Vec<u32>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Bytes behind the head of a type.
fn behind(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        INT | VARIABLE | DECLARATION_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | SECTION | ENUM64 => 12 * count,
        ENUM | PROTOTYPE => 8 * count,
        POINTER | FORWARD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNCTION | FLOAT | TYPE_TAG => 0,
        _ => return None,
    })
}

impl<'a> Types<'a> {
    /// Bytes of the head of a type.
    const HEAD: usize = 12;

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        const MAGIC: u16 = 0xeb9f;
        const VERSION: u8 = 1;
        let [low, high, version, _flags] = *bytes.first_chunk()?;
        if (u16::from_ne_bytes([low, high]), version) != (MAGIC, VERSION) {
            return None;
        }
        let part = |at| {
            let body = bytes.get(word(bytes, 4)? as usize..)?;
            body.get(word(bytes, at)? as usize..)?.get(..word(bytes, at + 4)? as usize)
        };
        let mut types = Self { bytes: part(8)?, names: part(16)?, places: Vec::new() };
        let mut at = 0;
        while at < types.bytes.len() {
            let (kind, count) = kind(word(types.bytes, at + 4)?);
            types.places.push(at as u32);
            at += Self::HEAD + behind(kind, count)?;
        }
        (at == types.bytes.len()).then_some(types)
    }

    fn get(&self, number: u32) -> Option<Type<'a>> {
        let at = *self.places.get((number as usize).checked_sub(1)?)? as usize;
        let info = word(self.bytes, at + 4)?;
        let (kind, count) = kind(info);
        let rest = self.bytes.get(at + Self::HEAD..)?.get(..behind(kind, count)?)?;
        let name = self.name(word(self.bytes, at)?)?;
        Some(Type { name, kind, flag: info >> 31 != 0, to: word(self.bytes, at + 8)?, rest })
    }

    fn name(&self, at: u32) -> Option<&'a [u8]> {
        let name = self.names.get(at as usize..)?;
        Some(&name[..name.iter().position(|byte| *byte == 0)?])
    }

    /// Looks at one type, and notes those that it consists of. `None` where the description does not add up.
    fn step(&self, place: Place<'a>, left: &mut Vec<Place<'a>>) -> Option<Result<(), String>> {
        let Type { name, kind, flag: _, to, rest } = self.get(place.number)?;
        match kind {
            STRUCT | UNION => {
                let special = STRUCTS.iter().find(|(special, _)| kind == STRUCT && *special == name);
                match special {
                    Some((_, Some(reason))) => return Some(Err(place.refused(name, reason))),
                    Some((_, None)) => {}
                    None => self.members(name, rest, left)?,
                }
            }
            // Its variables, whose names they have themselves.
            SECTION => left.extend(rest.chunks_exact(12).filter_map(|entry| {
                let number = word(entry, 0)?;
                Some(Place { number, owner: name, field: self.get(number)?.name })
            })),
            ARRAY => left.push(Place { number: word(rest, 0)?, ..place }),
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG | VARIABLE => left.push(Place { number: to, ..place }),
            POINTER => {
                if let Some(tag) = self.tag(to)? {
                    return Some(Err(
                        place.refused(tag, "is a pointer of the kernel's programs to what is the kernel's")
                    ));
                }
            }
            // The others are plain data, or nothing that a value consists of.
            _ => {}
        }
        Some(Ok(()))
    }

    fn members(&self, owner: &'a [u8], rest: &'a [u8], left: &mut Vec<Place<'a>>) -> Option<()> {
        for member in rest.chunks_exact(12) {
            left.push(Place { number: word(member, 4)?, owner, field: self.name(word(member, 0)?)? });
        }
        Some(())
    }

    /// The tag that makes a pointer to this type one of the kernel's, if there is one.
    fn tag(&self, to: u32) -> Option<Option<&'a [u8]>> {
        let mut number = to;
        for _ in 0..DEPTH {
            if number == 0 {
                return Some(None);
            }
            let Type { name, kind, flag, to, rest: _ } = self.get(number)?;
            match kind {
                TYPE_TAG if !flag && TAGS.contains(&name) => return Some(Some(name)),
                TYPE_TAG | VOLATILE | CONST | RESTRICT | TYPEDEF => number = to,
                _ => return Some(None),
            }
        }
        None
    }
}

/// BTF_INFO_KIND, BTF_INFO_VLEN.
const fn kind(info: u32) -> (u32, usize) {
    (info >> 24 & 0x1f, (info & 0xffff) as usize)
}

#[cfg(test)]
mod tests;
