//! A configuration on a command line.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::draft::Draft;
use super::fault::{ConfigError, Place, Source};
use super::given::Given;
use super::key::{Entry, Flag, FlagTexts, Otherwise, Said};
use super::keys::{self, Config, Form, RUN_DIR, sections};
use super::kind::{Arity, Kind};
use super::types::Vip;
use crate::run_dir::RunDir;

/// A configuration on a command line: a file, flags that win over what it says, or both.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct Flags {
    /// Configuration file; see docs/configuration.md
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the file says, or in its place.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// The flags that say what keys of the file say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Overrides {
    /// As they were given, those of lists with commas between their values.
    texts: FlagTexts,
}

/// A key of the file, and its value as TOML.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyLine {
    /// The table that it is in; empty at the top.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl Flags {
    /// The file, if one is given, with the flags put over it.
    ///
    /// # Errors
    /// The file cannot be read, something in it or in a flag is wrong, or neither is given.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        self.read().map(|(config, _)| config)
    }

    /// The same, and what each key says.
    pub(super) fn read(&self) -> Result<(Config, Vec<Said>), ConfigError> {
        let flags = &self.overrides.texts;
        let nothing = !flags.contains_key("--vip") && !flags.contains_key("--nodes");
        let (name, text) = match &self.config {
            Some(path) => {
                let read = fs::read_to_string(path).map_err(|error| ConfigError::Read {
                    path: path.clone(),
                    error,
                });
                (path.display().to_string(), read?)
            }
            None if nothing => return Err(ConfigError::Nothing),
            None => (Source::NONE.name.to_owned(), Source::NONE.text.to_owned()),
        };
        let source = Source {
            name: &name,
            text: &text,
        };
        let draft = Draft::read(&source, flags, self.config.is_none());
        draft
            .and_then(|draft| {
                let said = draft.said().to_vec();
                Ok((draft.finish()?, said))
            })
            .map_err(|fault| source.error(fault))
    }

    /// The same flags with these VIPs, whatever file and flags say.
    pub(super) fn with_vips<'a>(mut self, vips: impl Iterator<Item = &'a Vip>) -> Self {
        let vips = vips.map(|vip| vip.endpoint().to_string());
        let text = vips.collect::<Vec<_>>().join(",");
        self.overrides.texts.insert("--vip", text.into());
        self
    }
}

impl Overrides {
    /// The run directory, by itself: for what needs nothing else of the configuration.
    ///
    /// # Errors
    /// It is no absolute path, or cannot be a directory of an agent's own.
    pub fn run_dir(&self) -> Result<RunDir, ConfigError> {
        let named = self.read("--run-dir", &keys::run_dir())?;
        Ok(named.unwrap_or_else(|| PathBuf::from(RUN_DIR).into()))
    }

    /// The state directory that is named, by itself.
    ///
    /// # Errors
    /// It is no absolute path, or cannot be a directory of an agent's own.
    pub fn state_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        self.read("--state-dir", &keys::state_dir())
    }

    /// The flags again, one word after the other.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![];
        for (flag, entry) in flags() {
            if let Some(text) = self.texts.get(flag.name) {
                words.push(flag.name.to_owned());
                if entry.arity != Arity::Switch {
                    words.push(text.display().to_string());
                }
            }
        }
        words
    }

    /// The keys of the file that say the same, in its order.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyLine> {
        let mut lines = vec![];
        for section in sections() {
            for entry in &section.entries {
                let text = entry.flag.and_then(|flag| self.texts.get(flag.name));
                lines.extend(text.map(|text| KeyLine {
                    section: match section.form {
                        Form::Top | Form::Entry => "",
                        Form::Table => section.name,
                    },
                    name: entry.name,
                    value: value_in_file(entry, &text.to_string_lossy()),
                }));
            }
        }
        lines
    }

    /// The value of one flag.
    fn read<T: 'static>(
        &self,
        flag: &'static str,
        kind: &Kind<T>,
    ) -> Result<Option<T>, ConfigError> {
        let text = self.texts.get(flag);
        let given = text.map(|text| Given::Text(text, Place::Flag(flag)));
        given
            .map(|given| kind.read(given))
            .transpose()
            .map_err(|faults| Source::NONE.error(faults))
    }
}

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        command.args(flags().map(|(flag, entry)| argument(flag, &entry)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut texts = FlagTexts::new();
        for (flag, entry) in flags() {
            let text = match entry.arity {
                Arity::Switch => matches.get_flag(flag.name).then(|| "true".into()),
                Arity::One => matches.get_one::<OsString>(flag.name).cloned(),
                Arity::List => matches.get_many::<OsString>(flag.name).map(|values| {
                    let values: Vec<&OsStr> = values.map(OsString::as_os_str).collect();
                    values.join(OsStr::new(","))
                }),
            };
            texts.extend(text.map(|text| (flag.name, text)));
        }
        Ok(Self { texts })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags that are declared, and their keys.
pub(super) fn flags() -> impl Iterator<Item = (Flag, Entry)> {
    let entries = sections().into_iter().flat_map(|section| section.entries);
    entries.filter_map(|entry| Some((entry.flag?, entry)))
}

/// Takes any value but the empty one, which is what an unset variable in a script is.
fn filled() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|value| {
        if value.is_empty() {
            Err("a value is required")
        } else {
            Ok(value)
        }
    })
}

/// The text of a flag as a value of the file.
fn value_in_file(entry: &Entry, text: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    match (entry.arity, text.parse::<i64>()) {
        (Arity::Switch, _) => text.to_owned(),
        (Arity::List, _) => {
            let values = text.split(',').map(|text| quoted(text.trim()));
            format!("[{}]", values.collect::<Vec<_>>().join(", "))
        }
        (Arity::One, Ok(number)) if entry.kind.starts_with("integer") => number.to_string(),
        (Arity::One, _) => quoted(text),
    }
}

fn argument(flag: Flag, entry: &Entry) -> Arg {
    let argument = Arg::new(flag.name)
        .long(flag.name.trim_start_matches('-'))
        .help(help(entry));
    match entry.arity {
        Arity::Switch => argument.action(ArgAction::SetTrue),
        // What is no value of the key is refused in its own words, also `-1`.
        Arity::One => argument
            .value_name(flag.value)
            .value_parser(filled())
            .allow_hyphen_values(entry.kind.starts_with("duration"))
            .allow_negative_numbers(entry.kind.starts_with("integer")),
        Arity::List => argument
            .value_name(flag.value)
            .value_parser(filled())
            .action(ArgAction::Append),
    }
}

/// The first paragraph of a key's documentation, its range and its default.
fn help(entry: &Entry) -> String {
    let summary = entry.documentation.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = summary.split_whitespace().collect();
    let mut help = words.join(" ").trim_end_matches('.').to_owned();
    if entry.arity == Arity::One {
        help = format!("{help}; {}", entry.range);
    }
    match entry.otherwise {
        Otherwise::Required | Otherwise::Unset("none") => {}
        Otherwise::Default(_) if entry.arity == Arity::Switch => {}
        Otherwise::Default(text) | Otherwise::Unset(text) => {
            help = format!("{help} [default: {text}]");
        }
    }
    help.replace(['`', '"'], "")
}
