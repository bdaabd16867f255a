//! What a key is, and the macro that declares keys.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Debug};

use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults, Place};
use super::given::Given;
use super::kind::{Arity, Kind, boolean};
use crate::words::nearest;

/// The texts of flags, by their names with dashes.
pub(super) type FlagTexts = BTreeMap<&'static str, OsString>;

/// A key whose values are of type `T`.
pub(super) struct Key<T> {
    entry: Entry,
    kind: Kind<T>,
}

/// A key as it is documented.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// Its first paragraph is what `--help` says of the flag.
    pub(super) documentation: &'static str,
    /// The type in the file, and the unit of a number.
    pub(super) kind: String,
    pub(super) range: String,
    pub(super) arity: Arity,
    pub(super) otherwise: Otherwise,
    pub(super) reload: Reload,
    /// Its values in the examples of the page.
    pub(super) examples: Examples,
    pub(super) flag: Option<Flag>,
}

/// What holds where a key is not given.
#[derive(Clone, Copy)]
pub(super) enum Otherwise {
    /// This value, written as behind a flag.
    Default(&'static str),
    /// The field is `None`, and this is what comes of it.
    Unset(&'static str),
    /// There is no configuration.
    Required,
}

/// The values of a key in the page's two examples.
#[derive(Clone, Copy)]
pub(super) struct Examples {
    /// In the example of a cluster with a list of nodes.
    pub(super) listed: Option<&'static str>,
    /// In the example of a cluster whose agents find each other.
    pub(super) open: Option<&'static str>,
}

/// What becomes of a changed value while the agent runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reload {
    /// `vip reload` applies it.
    Live,
    /// It counts from the next start of the agent on.
    Restart,
}

/// A flag that says what a key says, and wins over the file.
#[derive(Clone, Copy)]
pub(super) struct Flag {
    /// With its dashes.
    pub(super) name: &'static str,
    /// The name of its value in `--help`.
    pub(super) value: &'static str,
}

impl<T: 'static> Key<T> {
    pub(super) fn new(
        name: &'static str,
        documentation: &'static str,
        kind: Kind<T>,
        (otherwise, reload): (Otherwise, Reload),
        (examples, flag): (Examples, Option<Flag>),
    ) -> Self {
        let entry = Entry {
            name,
            documentation,
            kind: kind.name.clone(),
            range: kind.range.clone(),
            arity: kind.arity,
            otherwise,
            reload,
            examples,
            flag,
        };
        Self { entry, kind }
    }

    pub(super) fn entry(self) -> Entry {
        self.entry
    }
}

/// A table of the file, and the flags that win over it.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    /// As messages name it.
    name: TableName,
    /// `None`: the file has no such table.
    values: Option<&'a DeTable<'a>>,
    place: Place,
    flags: &'a FlagTexts,
    /// There is no file.
    only_flags: bool,
}

/// How messages name a table.
#[derive(Clone, Copy)]
enum TableName {
    Top,
    Section(&'static str),
    /// An entry of this list.
    Entry(&'static str),
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => f.write_str("at the top of the file"),
            Self::Section(name) => write!(f, "in [{name}]"),
            Self::Entry(list) => write!(f, "in an entry of `{list}`"),
        }
    }
}

impl<'a> Table<'a> {
    /// The whole file. `only_flags`: there is none.
    pub(super) fn root(values: &'a DeTable<'a>, flags: &'a FlagTexts, only_flags: bool) -> Self {
        Self {
            name: TableName::Top,
            values: Some(values),
            place: Place::File(0),
            flags,
            only_flags,
        }
    }

    /// The keys of a table in the list `list`, in which no others may be. `wanted` is what is
    /// expected there, for the error.
    pub(super) fn entry<G: Group>(
        list: &'static str,
        given: Given<'a>,
        wanted: &str,
    ) -> Result<G, Faults> {
        static NO_FLAGS: FlagTexts = FlagTexts::new();
        let table = Self {
            name: TableName::Entry(list),
            values: Some(table(given, wanted)?),
            place: given.place(),
            flags: &NO_FLAGS,
            only_flags: false,
        };
        let names: Vec<_> = G::entries().iter().map(|entry| entry.name).collect();
        let mut faults = Faults::default();
        faults.keep(table.refuse_all_but(&names, |_| None));
        match faults.keep(table.read()) {
            Some(group) => faults.or(group),
            None => Err(faults),
        }
    }

    /// A table in this one.
    pub(super) fn section(self, name: &'static str) -> Result<Self, Fault> {
        let value = self.given(name);
        let values = value.map(|given| table(given, "a table")).transpose()?;
        let name = TableName::Section(name);
        Ok(Self {
            name,
            values,
            ..self
        })
    }

    pub(super) fn read<G: Group>(self) -> Result<G, Faults> {
        G::read(self)
    }

    /// Refuses all keys but those that are known. `elsewhere` says where else a key belongs, if
    /// anywhere.
    pub(super) fn refuse_all_but(
        self,
        known: &[&'static str],
        elsewhere: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Faults> {
        let mut faults = Faults::default();
        for (key, value) in self.values.into_iter().flat_map(DeTable::iter) {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let what = match value.get_ref() {
                DeValue::Table(_) => format!("unknown table [{name}]"),
                _ => format!("unknown key `{name}` {}", self.name),
            };
            if let Some(place) = elsewhere(name) {
                let message = format!("{what}; it belongs to {place}");
                faults.add(Fault::new(key.span(), message));
                continue;
            }
            let fault = match nearest(name, known.iter().copied()) {
                Some(meant) => {
                    let message = format!("{what}; did you mean `{meant}`?");
                    Fault::new(key.span(), message).of_misspelt(meant)
                }
                None => {
                    let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
                    let message = format!("{what}, expected one of {}", known.join(", "));
                    Fault::new(key.span(), message)
                }
            };
            faults.add(fault);
        }
        faults.or(())
    }

    /// The value of a key in the file.
    pub(super) fn given(self, name: &str) -> Option<Given<'a>> {
        self.values?.get(name).map(Given::File)
    }

    /// The value of a key. It must be right in the file even if a flag wins.
    fn get<T: 'static>(self, key: &Key<T>) -> Result<Option<T>, Faults> {
        let read = |given| key.kind.read(given);
        let mut faults = Faults::default();
        let in_file = faults.keep(self.given(key.entry.name).map(read).transpose());
        let flag = faults.keep(self.flag(key).map(read).transpose());
        faults.or(flag.flatten().or(in_file.flatten()))
    }

    /// The value of a key on the command line.
    fn flag<T: 'static>(self, key: &Key<T>) -> Option<Given<'a>> {
        let flag = key.entry.flag?;
        let text = self.flags.get(flag.name)?;
        Some(Given::Text(text, Place::Flag(flag.name)))
    }

    /// What a key says, to be compared with what it says after a change. `source` is the text of the
    /// file.
    pub(super) fn said<T: Debug + 'static>(
        self,
        key: &Key<T>,
        section: &'static str,
        source: &str,
    ) -> Result<Said, Faults> {
        let Entry {
            name,
            otherwise,
            reload,
            ..
        } = key.entry;
        let given = self.flag(key).or_else(|| self.given(name));
        let (text, given) = match (given, otherwise) {
            (Some(given), _) => (given.written(source), Some(given)),
            (None, Otherwise::Default(text)) => {
                let default = Given::Text(OsStr::new(text), self.place);
                (text.to_owned(), Some(default))
            }
            (None, Otherwise::Unset(text)) => (format!("unset ({text})"), None),
            (None, Otherwise::Required) => ("unset".to_owned(), None),
        };
        let value = given.map(|given| key.kind.read(given)).transpose()?;
        Ok(Said {
            section,
            name,
            reload,
            text,
            value: format!("{value:?}"),
        })
    }

    /// The value of a key, or its default.
    pub(super) fn default<T: 'static>(self, key: &Key<T>, text: &str) -> Result<T, Faults> {
        let place = match key.entry.flag {
            Some(flag) if self.only_flags => Place::Flag(flag.name),
            Some(_) | None => self.place,
        };
        match self.get(key)? {
            Some(value) => Ok(value),
            None => key.kind.read(Given::Text(OsStr::new(text), place)),
        }
    }

    /// The value of a key that need not be given.
    pub(super) fn unset<T: 'static>(
        self,
        key: &Key<T>,
        _consequence: &str,
    ) -> Result<Option<T>, Faults> {
        self.get(key)
    }

    /// The value of a key that must be given.
    pub(super) fn required<T: 'static>(self, key: &Key<T>, proposal: &str) -> Result<T, Faults> {
        let name = key.entry.name;
        let missing = || match key.entry.flag {
            Some(flag) if self.only_flags => Fault::new(
                Place::Flag(flag.name),
                format!("missing; give it, or --config FILE with `{name}` in it"),
            ),
            Some(flag) => Fault::new(
                self.place,
                format!(
                    "`{name}` is missing; add `{name} = {proposal}` or give {}",
                    flag.name
                ),
            ),
            None => Fault::new(
                self.place,
                format!("`{name}` is missing; add `{name} = {proposal}`"),
            ),
        };
        self.get(key)?
            .ok_or_else(|| missing().of_missing(name).into())
    }
}

/// What a key says.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// The table that it is in.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) reload: Reload,
    /// As it is written.
    pub(super) text: String,
    /// What that means: two texts may mean the same.
    pub(super) value: String,
}

fn table<'a>(given: Given<'a>, wanted: &str) -> Result<&'a DeTable<'a>, Fault> {
    match given {
        Given::File(value) => match value.get_ref() {
            DeValue::Table(values) => Ok(values),
            _ => Err(given.wrong_type(wanted)),
        },
        Given::Text(..) => Err(given.wrong_type(wanted)),
    }
}

/// Keys of a table that are declared together ([`keys`]). A table may have several groups.
pub(super) trait Group: Sized {
    fn read(table: Table<'_>) -> Result<Self, Faults>;

    fn entries() -> Vec<Entry>;

    /// What its keys say, in a table that can be read. `section` is the table's name, and `source`
    /// the text of the file.
    fn said(table: Table<'_>, section: &'static str, source: &str) -> Result<Vec<Said>, Faults>;
}

/// A group that is `None` with `enabled = false`.
pub(super) trait Switched: Group {
    /// What `enabled` means.
    const ENABLED: &'static str;

    fn enabled() -> Key<bool> {
        let default = (Otherwise::Default("true"), Reload::Restart);
        Key::new(
            "enabled",
            Self::ENABLED,
            boolean(),
            default,
            (
                Examples {
                    listed: Some("true"),
                    open: None,
                },
                None,
            ),
        )
    }
}

impl<G: Switched> Group for Option<G> {
    fn read(table: Table<'_>) -> Result<Self, Faults> {
        let (enabled, group) = both(table.default(&G::enabled(), "true"), G::read(table))?;
        Ok(enabled.then_some(group))
    }

    fn entries() -> Vec<Entry> {
        let enabled = [G::enabled().entry()].into_iter();
        enabled.chain(G::entries()).collect()
    }

    fn said(table: Table<'_>, section: &'static str, source: &str) -> Result<Vec<Said>, Faults> {
        let mut said = vec![table.said(&G::enabled(), section, source)?];
        said.extend(G::said(table, section, source)?);
        Ok(said)
    }
}

impl<A: Group, B: Group> Group for (A, B) {
    fn read(table: Table<'_>) -> Result<Self, Faults> {
        both(A::read(table), B::read(table))
    }

    fn entries() -> Vec<Entry> {
        A::entries().into_iter().chain(B::entries()).collect()
    }

    fn said(table: Table<'_>, section: &'static str, source: &str) -> Result<Vec<Said>, Faults> {
        let mut said = A::said(table, section, source)?;
        said.extend(B::said(table, section, source)?);
        Ok(said)
    }
}

/// Both values, or the faults of both.
fn both<A, B>(a: Result<A, Faults>, b: Result<B, Faults>) -> Result<(A, B), Faults> {
    let mut faults = Faults::default();
    match (faults.keep(a), faults.keep(b)) {
        (Some(a), Some(b)) => Ok((a, b)),
        _ => Err(faults),
    }
}

/// A field that is no key, made when the keys have been read.
pub(super) fn make<T>(
    table: Table<'_>,
    make: impl FnOnce(Table<'_>) -> Result<T, Faults>,
) -> Result<T, Faults> {
    make(table)
}

/// Declares a group of keys: a struct with a field for each, which has the key's name.
///
/// ```ignore
/// keys! {
///     /// What the group is about.
///     pub struct Vrrp {
///         /// One line, which is also the help of the flag.
///         ///
///         /// More for the page: why to change it, and what else must be changed then.
///         pub interval: Duration {
///             kind: duration(ms(10)..=ms(40_950)),
///             default: "100ms",
///             reload: Restart,
///             example: "\"1s\"",
///             flag: ("--interval", "DURATION"),
///         }
///     }
///     made {
///         /// A field that is no key, and how it is made from the table.
///         pub other: Other = |table| table.section("other")?.read();
///     }
/// }
/// ```
///
/// - `kind` ([`Kind`]) says how the value is written, and its range.
/// - `default: "100ms"`, written as behind a flag; or `unset: "what holds then"` for a field that
///   is an `Option`; or `required: "a value to propose"`.
/// - `reload` ([`Reload`]) says whether `vip reload` applies a changed value (`Live`), or only the
///   next start of the agent (`Restart`).
/// - `example` is the value in the page's example of a cluster with a list of nodes, `open_example`
///   that in the example of a cluster whose agents find each other. Both may be left out; a test
///   wants one of them.
/// - `flag` has the flag's name, and that of its value. It may be left out.
///
/// After a change, `VIP_WRITE_DOCS=1 cargo test -p vip-userspace page_is_up_to_date` writes the
/// page.
macro_rules! keys {
    (
        $(#[doc = $about:literal])*
        $(#[derive($($derive:ident),*)])?
        $vis:vis struct $group:ident {
            $(
                $(#[doc = $doc:literal])*
                $field_vis:vis $field:ident: $type:ty {
                    kind: $kind:expr,
                    $otherwise:ident: $text:expr,
                    reload: $reload:ident
                    $(, example: $example:expr)?
                    $(, open_example: $open:expr)?
                    $(, flag: ($flag:expr, $value:expr))?
                    $(,)?
                }
            )*
        }
        $(made {
            $(
                $(#[doc = $made_doc:literal])*
                $made_vis:vis $made:ident: $made_type:ty = $init:expr;
            )*
        })?
    ) => {
        $(#[doc = $about])*
        $(#[derive($($derive),*)])?
        $vis struct $group {
            $( $(#[doc = $doc])* $field_vis $field: $type, )*
            $($( $(#[doc = $made_doc])* $made_vis $made: $made_type, )*)?
        }

        impl $crate::config::key::Group for $group {
            fn read(
                table: $crate::config::key::Table<'_>,
            ) -> Result<Self, $crate::config::fault::Faults> {
                let mut faults = $crate::config::fault::Faults::default();
                $(
                    let $field = faults.keep(table.$otherwise(
                        &keys!(@key $field [$($doc)*] $kind, $otherwise, $text, $reload,
                            [$($example)?] [$($open)?] [$($flag, $value)?]),
                        $text,
                    ));
                )*
                $($( let $made = faults.keep($crate::config::key::make(table, $init)); )*)?
                $( let Some($field) = $field else { return Err(faults) }; )*
                $($( let Some($made) = $made else { return Err(faults) }; )*)?
                Ok(Self {
                    $( $field, )*
                    $($( $made, )*)?
                })
            }

            fn entries() -> Vec<$crate::config::key::Entry> {
                vec![$(
                    keys!(@key $field [$($doc)*] $kind, $otherwise, $text, $reload,
                        [$($example)?] [$($open)?] [$($flag, $value)?])
                    .entry(),
                )*]
            }

            fn said(
                table: $crate::config::key::Table<'_>,
                section: &'static str,
                source: &str,
            ) -> Result<Vec<$crate::config::key::Said>, $crate::config::fault::Faults> {
                Ok(vec![$(
                    table.said(
                        &keys!(@key $field [$($doc)*] $kind, $otherwise, $text, $reload,
                            [$($example)?] [$($open)?] [$($flag, $value)?]),
                        section,
                        source,
                    )?,
                )*])
            }
        }
    };
    (@key $field:ident [$($doc:literal)*] $kind:expr, $otherwise:ident, $text:expr, $reload:ident,
        $example:tt $open:tt $flag:tt) => {
        $crate::config::key::Key::new(
            stringify!($field),
            concat!($($doc, "\n"),*),
            $kind,
            (
                keys!(@otherwise $otherwise $text),
                $crate::config::key::Reload::$reload,
            ),
            (
                $crate::config::key::Examples {
                    listed: keys!(@example $example),
                    open: keys!(@example $open),
                },
                keys!(@flag $flag),
            ),
        )
    };
    (@otherwise default $text:expr) => { $crate::config::key::Otherwise::Default($text) };
    (@otherwise unset $text:expr) => { $crate::config::key::Otherwise::Unset($text) };
    (@otherwise required $text:expr) => { $crate::config::key::Otherwise::Required };
    (@example []) => { None };
    (@example [$example:expr]) => { Some($example) };
    (@flag []) => { None };
    (@flag [$name:expr, $value:expr]) => {
        Some($crate::config::key::Flag { name: $name, value: $value })
    };
}
pub(super) use keys;
