//! Reports about an image; depends on `image` alone.
//!
//! Each file below is one report: a plain structure that is made from an image, is written as JSON by its fields
//! (`docs/json.md`), and says of itself what people read ([`Report::text`]).
//!
//! Architecture invariant: what comes from an image is hostile. Nothing here indexes by it without a check, and nothing of
//! it reaches a terminal without [`text::printable`].

mod bpf;
pub mod env;
pub mod fds;
pub mod files;
pub mod ipc;
pub mod json;
pub mod maps;
pub mod names;
pub mod place;
pub mod signals;
pub mod sockets;
pub mod stats;
pub mod summary;
pub mod table;
pub mod text;
pub mod threads;
pub mod timers;
pub mod tree;

/// A report that people and programs can read.
pub trait Report: serde::Serialize {
    /// The report for people, as lines that fit a terminal of `width` columns where there is one.
    fn text(&self, width: Option<u16>) -> String;
}

/// Bytes of memory that one report takes from an image at most: argument and environment areas can be hostile.
const MEMORY_LIMIT: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::image::tests::sample::small_image;
    use serde_json::Value;

    /// Every member of every report, by schema.
    fn members(document: &Value, found: &mut Vec<String>) {
        match document {
            Value::Object(object) => object.iter().for_each(|(name, value)| {
                found.push(name.clone());
                members(value, found);
            }),
            Value::Array(array) => array.iter().for_each(|value| members(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn docs_json_md_names_every_member_of_every_report() {
        let text = include_str!("../../docs/json.md");
        let image = Image::open(small_image()).expect("an image");
        let snapshot = image.snapshot();
        let documents = [
            serde_json::to_value(summary::report(&image)),
            serde_json::to_value(tree::report(snapshot)),
            serde_json::to_value(threads::report(snapshot)),
            serde_json::to_value(maps::report(&image).expect("maps")),
            serde_json::to_value(fds::report(snapshot)),
            serde_json::to_value(signals::report(snapshot)),
            serde_json::to_value(timers::report(snapshot)),
            serde_json::to_value(files::report(snapshot)),
            serde_json::to_value(ipc::report(snapshot)),
            serde_json::to_value(env::report(&image).expect("env")),
            serde_json::to_value(stats::report(&image).expect("stats")),
        ];
        for document in documents {
            let document = document.expect("JSON");
            let schema = document["schema"].as_str().expect("a schema");
            let section = text.split("\n##").find(|section| section.contains(&format!("`{schema}`")));
            let section = section.unwrap_or_else(|| panic!("no section for {schema}"));
            let mut found = Vec::new();
            members(&document, &mut found);
            // Registers are given as a range.
            for member in found.iter().filter(|member| *member != "schema" && !is_register(member)) {
                assert!(section.contains(&format!("`{member}`")), "{schema}: {member} is not described");
            }
        }
    }

    fn is_register(name: &str) -> bool {
        name.starts_with('r') && name.len() <= 3 || matches!(name, "cs" | "ss" | "ds" | "es" | "fs" | "gs")
    }
}
