//! As much of Markdown as documents here are written in.

use std::fs;
use std::path::Path;

/// A place in a document.
pub(crate) struct Found {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The text of the line before it.
    pub(crate) before: String,
}

/// A fenced block.
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
}

/// What a document names.
#[derive(Default)]
pub(crate) struct Document {
    pub(crate) spans: Vec<Found>,
    /// Targets of links.
    pub(crate) links: Vec<Found>,
    pub(crate) blocks: Vec<Block>,
}

impl Document {
    pub(crate) fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut lines = (1..).zip(text.lines());
        while let Some((line, text)) = lines.next() {
            let Some(words) = text.trim_start().strip_prefix("```") else {
                document.line(line, text);
                continue;
            };
            let language = words.split_whitespace().next().unwrap_or("").to_owned();
            let content = lines.by_ref().map(|(_, text)| text.trim_start());
            let content: Vec<&str> = content.take_while(|text| *text != "```").collect();
            document.blocks.push(Block {
                line,
                language,
                text: content.join("\n"),
            });
        }
        document
    }

    fn line(&mut self, line: usize, text: &str) {
        let mut prose = String::new();
        let mut rest = text;
        while let Some(begin) = rest.find('`') {
            let ticks = rest[begin..].chars().take_while(|c| *c == '`').count();
            prose += &rest[..begin];
            let fence = "`".repeat(ticks);
            let content = &rest[begin + ticks..];
            let Some(end) = content.find(&fence) else {
                break;
            };
            self.spans.push(Found {
                line,
                text: content[..end].trim().to_owned(),
                before: prose.clone(),
            });
            prose.push('_');
            rest = &content[end + ticks..];
        }
        prose += rest;
        for link in prose.split("](").skip(1) {
            if let Some((target, _)) = link.split_once(')') {
                self.links.push(Found {
                    line,
                    text: target.to_owned(),
                    before: String::new(),
                });
            }
        }
    }
}

/// What is wrong with a link of a document.
pub(crate) fn broken(document: &Path, target: &str) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        document.to_owned()
    } else {
        document.with_file_name("").join(file)
    };
    if !path.exists() {
        return Some(format!("no file {file}"));
    }
    if heading.is_empty() {
        return None;
    }
    let text = fs::read_to_string(&path).expect("a document");
    let mut headings = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(anchor);
    let found = headings.any(|anchor| anchor == heading);
    (!found).then(|| format!("no heading {heading} in {}", path.display()))
}

/// What GitHub calls a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || "-_".contains(c) => Some(c),
        _ => None,
    });
    kept.collect()
}
