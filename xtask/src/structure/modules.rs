//! The modules of a target, and which source file uses items of which other.
//!
//! Code for tests is left out. A name that a module re-exports from below itself leads to where it
//! is defined; any other one leads to the module by which it is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, Lit, Meta, UseTree, Visibility};

use super::circles::Edges;

/// Re-exports of re-exports are followed so far.
const DEPTH: u32 = 8;

/// `a::b::C`
type Names = Vec<String>;

/// All modules of a target. The first is its root.
#[derive(Default)]
pub(super) struct Tree {
    files: Vec<PathBuf>,
    modules: Vec<Module>,
}

/// One module, and what is written in it.
#[derive(Default)]
struct Module {
    /// Index of its file.
    file: usize,
    parent: usize,
    children: BTreeMap<String, usize>,
    /// Items that it defines.
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// All paths in its code.
    paths: BTreeSet<Names>,
}

/// One name of a `use`.
struct Import {
    path: Names,
    /// The name it has here; none for a glob.
    name: Option<String>,
    /// Others see it too.
    is_shared: bool,
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Found {
    Module(usize),
    /// An item that this module names.
    Item(usize),
}

impl Found {
    fn module(self) -> usize {
        match self {
            Self::Module(module) | Self::Item(module) => module,
        }
    }
}

impl Tree {
    /// Reads the root file of a target, and all files that belong to it.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let folder = root.parent().context("a source file lies in a folder")?;
        tree.read_file(root, folder, 0)?;
        Ok(tree)
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads a file as a new module, whose children lie in `folder`. Returns the module.
    fn read_file(&mut self, path: &Path, folder: &Path, parent: usize) -> Result<usize> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("parse {}", path.display()))?;
        self.files.push(path.to_owned());
        let module = self.add(self.files.len() - 1, parent);
        self.read_items(&syntax.items, module, path, folder)?;
        Ok(module)
    }

    fn add(&mut self, file: usize, parent: usize) -> usize {
        self.modules.push(Module {
            file,
            parent,
            ..Module::default()
        });
        self.modules.len() - 1
    }

    fn read_items(&mut self, items: &[Item], at: usize, file: &Path, folder: &Path) -> Result<()> {
        for item in items {
            let Item::Mod(inner) = item else {
                Reader(&mut self.modules[at]).visit_item(item);
                continue;
            };
            if is_for_tests(&inner.attrs) {
                continue;
            }
            let name = inner.ident.to_string();
            let own_folder = folder.join(&name);
            let child = match (&inner.content, path_attribute(&inner.attrs)) {
                (Some((_, items)), _) => {
                    let child = self.add(self.modules[at].file, at);
                    self.read_items(items, child, file, &own_folder)?;
                    child
                }
                (None, Some(path)) => {
                    let path = file.with_file_name(path);
                    let folder = path.parent().context("a source file lies in a folder")?;
                    self.read_file(&path, folder, at)?
                }
                (None, None) => {
                    let candidates = [own_folder.with_extension("rs"), own_folder.join("mod.rs")];
                    let Some(path) = candidates.iter().find(|path| path.is_file()) else {
                        bail!("{}: no file of the module {name}", file.display());
                    };
                    self.read_file(path, &own_folder, at)?
                }
            };
            self.modules[at].children.insert(name, child);
        }
        Ok(())
    }

    /// For each file, those whose items it uses.
    pub(super) fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (at, module) in self.modules.iter().enumerate() {
            let imports = module.imports.iter().filter_map(|import| {
                let found = self.find(at, &import.path, DEPTH)?;
                let is_re_export = import.is_shared && self.is_below(found.module(), at);
                // A module that is imported is used by the paths that begin with its name.
                match found {
                    Found::Module(target) if import.name.is_none() => Some(target),
                    Found::Module(_) => None,
                    Found::Item(target) => Some(target),
                }
                .filter(|_| !is_re_export)
            });
            let paths =
                module
                    .paths
                    .iter()
                    .filter_map(|path| match self.find(at, path, DEPTH)? {
                        Found::Item(target) => Some(target),
                        Found::Module(_) => None,
                    });
            for target in imports.chain(paths) {
                let (from, to) = (module.file, self.modules[target].file);
                if from != to {
                    edges.entry(from).or_default().insert(to);
                }
            }
        }
        edges
    }

    /// Files with a `use super::*`.
    pub(super) fn parent_globs(&self) -> impl Iterator<Item = &PathBuf> {
        let is_one = |import: &Import| {
            import.name.is_none() && import.path.iter().all(|name| name == "super")
        };
        let with = self
            .modules
            .iter()
            .filter(move |module| module.imports.iter().any(is_one));
        with.map(|module| &self.files[module.file])
    }

    /// What a path in a module leads to; none if out of the crate.
    fn find(&self, from: usize, path: &[String], depth: u32) -> Option<Found> {
        let (first, mut rest) = path.split_first()?;
        let mut found = match first.as_str() {
            "crate" => Found::Module(0),
            "self" => Found::Module(from),
            "super" => Found::Module(self.modules[from].parent),
            name => self.look_up(from, name, depth)?,
        };
        while let (Found::Module(module), Some((name, after))) = (found, rest.split_first()) {
            found = match name.as_str() {
                "self" => found,
                "super" => Found::Module(self.modules[module].parent),
                name => self
                    .look_up(module, name, depth)
                    .unwrap_or(Found::Item(module)),
            };
            rest = after;
        }
        Some(found)
    }

    /// What a name in a module means; none if it is not known there.
    fn look_up(&self, module: usize, name: &str, depth: u32) -> Option<Found> {
        let depth = depth.checked_sub(1)?;
        let this = &self.modules[module];
        if let Some(&child) = this.children.get(name) {
            return Some(Found::Module(child));
        }
        if this.items.contains(name) {
            return Some(Found::Item(module));
        }
        let mut named = this.imports.iter();
        if let Some(import) = named.find(|import| import.name.as_deref() == Some(name)) {
            return match self.find(module, &import.path, depth)? {
                Found::Item(target) if !self.is_below(target, module) => Some(Found::Item(module)),
                found => Some(found),
            };
        }
        let mut globs = this.imports.iter().filter(|import| import.name.is_none());
        globs.find_map(|import| match self.find(module, &import.path, depth)? {
            Found::Module(target) if self.is_below(target, module) => {
                self.look_up(target, name, depth)
            }
            _ => None,
        })
    }

    fn is_below(&self, mut module: usize, ancestor: usize) -> bool {
        while module > 0 {
            module = self.modules[module].parent;
            if module == ancestor {
                return true;
            }
        }
        false
    }
}

/// Collects what is written in a module.
struct Reader<'a>(&'a mut Module);

impl Reader<'_> {
    fn import(&mut self, tree: &UseTree, path: &mut Names, is_shared: bool) {
        let (last, name) = match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.import(&inner.tree, path, is_shared);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                for inner in &group.items {
                    self.import(inner, path, is_shared);
                }
                return;
            }
            UseTree::Name(name) => {
                let last = name.ident.to_string();
                // `use a::{self}` is called `a`.
                let name = if last == "self" { path.last() } else { None };
                let name = name.unwrap_or(&last).clone();
                (Some(last), Some(name))
            }
            UseTree::Rename(renamed) => (
                Some(renamed.ident.to_string()),
                Some(renamed.rename.to_string()),
            ),
            _ => (None, None),
        };
        self.0.imports.push(Import {
            path: path.iter().cloned().chain(last).collect(),
            name,
            is_shared,
        });
    }

    /// Paths in what only a macro understands.
    fn tokens(&mut self, tokens: &TokenStream) {
        let mut path = Names::new();
        let mut colons = 0;
        let mut is_member = false;
        for token in tokens.clone() {
            let is_dot = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == '.');
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.path(&mut path);
                    }
                    if !is_member {
                        path.push(name.to_string());
                    }
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.path(&mut path);
                    self.tokens(&group.stream());
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.path(&mut path);
                    colons = 0;
                }
            }
            is_member = is_dot;
        }
        self.path(&mut path);
    }

    fn path(&mut self, path: &mut Names) {
        if !path.is_empty() {
            self.0.paths.insert(std::mem::take(path));
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = match item {
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Impl(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            self.0.items.extend(name.map(ToString::to_string));
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_shared = !matches!(item.vis, Visibility::Inherited);
        self.import(&item.tree, &mut Names::new(), is_shared);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter();
        let mut names = names.map(|segment| segment.ident.to_string()).collect();
        self.path(&mut names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_path(self, &call.path);
        self.tokens(&call.tokens);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(&list.tokens);
    }

    // `pub(in crate::a)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Whether something is compiled for tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<Meta>()
                .is_ok_and(|condition| wants_test(&condition))
    })
}

/// Whether a condition is met in tests only.
fn wants_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test");
    };
    let inner = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated);
    let inner = inner.unwrap_or_default();
    if list.path.is_ident("all") {
        inner.iter().any(wants_test)
    } else {
        list.path.is_ident("any") && inner.iter().all(wants_test)
    }
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match &pair.value {
            Expr::Lit(value) if pair.path.is_ident("path") => match &value.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::circles;
    use super::*;

    /// Edges between the files of a crate, by their names, `a -> b`.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("writes");
        }
        let tree = Tree::read(&folder.path().join("lib.rs")).expect("reads");
        let name = |file: usize| {
            let path = tree.files()[file].strip_prefix(folder.path());
            path.expect("below").display().to_string()
        };
        let edges = tree.edges();
        let all = circles::pairs(&edges);
        let mut lines: Vec<String> = all
            .map(|(from, to)| format!("{} -> {}", name(from), name(to)))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn declarations_and_re_exports_of_children_are_no_use() {
        let root = "mod a; pub(crate) use a::Thing; #[cfg(test)] mod tests;";
        let found = edges(&[("lib.rs", root), ("a.rs", "pub struct Thing;")]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_re_exported_name_leads_to_its_file() {
        let found = edges(&[
            (
                "lib.rs",
                "mod a; mod b; pub use a::*; pub use self::b::inner as renamed;",
            ),
            ("a.rs", "pub struct Thing;"),
            ("b/mod.rs", "pub mod inner; use crate::Thing;"),
            (
                "b/inner.rs",
                "use super::super::Thing as Other; pub fn f() {}",
            ),
        ]);
        assert_eq!(found, ["b/inner.rs -> a.rs", "b/mod.rs -> a.rs"]);
    }

    #[test]
    fn a_parent_that_uses_its_child_and_is_used_by_it_is_seen() {
        let found = edges(&[
            ("lib.rs", "mod a; struct Mine; fn f() { a::g(); }"),
            ("a.rs", "pub fn g() { let _ = super::Mine; }"),
        ]);
        assert_eq!(found, ["a.rs -> lib.rs", "lib.rs -> a.rs"]);
    }

    #[test]
    fn paths_are_found_in_macros_attributes_and_through_imported_modules() {
        let found = edges(&[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "fn f() { println!(\"{}\", x.b + crate::b::G); }"),
            ("b.rs", "#[arg(value_parser = crate::c::h)] pub struct G;"),
            (
                "c.rs",
                "use crate::{d, self as root}; use std::fmt; fn f() { d::h(); }",
            ),
            (
                "d.rs",
                "pub fn h() {} #[cfg(all(test, unix))] use crate::a::X;",
            ),
        ]);
        assert_eq!(found, ["a.rs -> b.rs", "b.rs -> c.rs", "c.rs -> d.rs"]);
    }

    #[test]
    fn globs_of_the_parent_are_found_outside_of_tests() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("lib.rs");
        let text = "mod a { use super::*; } #[cfg(test)] mod tests { use super::*; }";
        fs::write(&root, text).expect("writes");
        let tree = Tree::read(&root).expect("reads");
        assert_eq!(tree.parent_globs().count(), 1);
        fs::write(&root, "mod a { use super::b::*; } mod b {}").expect("writes");
        let tree = Tree::read(&root).expect("reads");
        assert_eq!(tree.parent_globs().count(), 0);
    }
}
