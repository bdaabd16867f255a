//! The parts of the page `docs/configuration.md` that follow from the declared keys.

use super::key::{Entry, Otherwise, Reload};
use super::keys::{Form, Section, sections};

/// The page with its generated parts made anew. Each lies between `<!-- generated: NAME -->` and
/// `<!-- end -->`.
#[must_use]
pub fn page(old: &str) -> String {
    const BEGIN: &str = "<!-- generated: ";
    const END: &str = "<!-- end -->";
    let mut parts = old.split(BEGIN);
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, old) = part.split_once(" -->").unwrap_or((part, ""));
        let after = old.split_once(END).map_or("", |(_, after)| after);
        page += &format!("{BEGIN}{name} -->\n\n{}\n{END}{after}", generated(name));
    }
    page
}

fn generated(name: &str) -> String {
    match name {
        "example" => example(|entry| entry.examples.listed),
        "open-example" => example(|entry| entry.examples.open),
        "flags" => flag_table(),
        name => {
            let sections = sections();
            let section = sections.iter().find(|section| section.name == name);
            section.map_or_else(String::new, key_table)
        }
    }
}

/// A file with all keys that have a value in this example.
fn example(value: fn(&Entry) -> Option<&'static str>) -> String {
    let mut text = "```toml\n".to_owned();
    for section in sections() {
        let entries = section.entries.iter();
        let lines =
            entries.filter_map(|entry| Some(format!("{} = {}\n", entry.name, value(entry)?)));
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            continue;
        }
        match section.form {
            Form::Top => {}
            Form::Entry => text += &format!("\n[[{}]]\n", section.name),
            Form::Table => text += &format!("\n[{}]\n", section.name),
        }
        text += &lines.concat();
    }
    text + "```\n"
}

fn key_table(section: &Section) -> String {
    let head = "| key | type, unit | default | range | change | meaning, and why to change it |\n\
                |---|---|---|---|---|---|\n";
    let rows = section.entries.iter().map(|entry| {
        let default = match entry.otherwise {
            Otherwise::Default(text) if is_bare(entry) => format!("`{text}`"),
            Otherwise::Default(text) => format!("`\"{text}\"`"),
            Otherwise::Unset(text) => text.to_owned(),
            Otherwise::Required => "none, must be given".to_owned(),
        };
        let Entry {
            name, kind, range, ..
        } = entry;
        let change = match entry.reload {
            Reload::Live => "reload",
            Reload::Restart => "restart",
        };
        let words: Vec<&str> = entry.documentation.split_whitespace().collect();
        let meaning = words.join(" ");
        format!("| `{name}` | {kind} | {default} | {range} | {change} | {meaning} |\n")
    });
    head.to_owned() + &rows.collect::<String>()
}

/// Written without quotes in the file.
fn is_bare(entry: &Entry) -> bool {
    entry.kind.starts_with("integer") || entry.kind.starts_with("boolean")
}

fn flag_table() -> String {
    let mut rows = "| flag | value | key |\n|---|---|---|\n\
                    | `--config` | `FILE` | none: the path of the file |\n"
        .to_owned();
    for section in sections() {
        for entry in &section.entries {
            let Some(flag) = entry.flag else { continue };
            let value = match flag.value {
                "" => "none".to_owned(),
                value => format!("`{value}`"),
            };
            let place = match section.form {
                Form::Top => String::new(),
                Form::Entry | Form::Table => format!(" in `[{}]`", section.name),
            };
            rows += &format!("| `{}` | {value} | `{}`{place} |\n", flag.name, entry.name);
        }
    }
    rows
}
