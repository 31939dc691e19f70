//! The kernel's names for its numbers, as reports spell them. Numbers without a name stay numbers.

pub mod bpf;
pub mod credentials;
pub mod event;
pub mod files;
pub mod memory;
pub mod signals;
pub mod syscalls;
pub mod tasks;

/// The names of the bits that are set, and what is left over in hexadecimal.
#[must_use]
pub fn bits(value: u64, names: &[(u64, &str)]) -> Vec<String> {
    let mut rest = value;
    let mut found = Vec::new();
    for &(bit, name) in names {
        if bit != 0 && rest & bit == bit {
            found.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        found.push(format!("{rest:#x}"));
    }
    found
}

/// The name at an index, or the number itself.
#[must_use]
pub fn at(index: u64, names: &[&str]) -> String {
    usize::try_from(index)
        .ok()
        .and_then(|index| names.get(index))
        .map_or_else(|| index.to_string(), |&name| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_without_a_name_are_kept() {
        assert_eq!(bits(0b1101, &[(1, "ONE"), (2, "TWO"), (0b1100, "BOTH")]), ["ONE", "BOTH"]);
        assert_eq!(bits(0x11, &[(1, "ONE")]), ["ONE", "0x10"]);
        assert!(bits(0, &[(1, "ONE")]).is_empty());
    }

    #[test]
    fn an_index_without_a_name_is_a_number() {
        assert_eq!(at(1, &["a", "b"]), "b");
        assert_eq!(at(2, &["a", "b"]), "2");
        assert_eq!(at(u64::MAX, &["a"]), u64::MAX.to_string());
    }
}
