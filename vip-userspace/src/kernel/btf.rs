//! Where the running kernel keeps a field of a structure, by its own description of its types
//! (BTF, Documentation/bpf/btf.rst). aya reads it for relocations, and does not show it.

use std::fs;
use std::io;
use std::path::Path;

/// The kernel's description.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Whether the kernel describes its types.
#[must_use]
pub fn is_there() -> bool {
    Path::new(VMLINUX).exists()
}

/// `BTF_MAGIC` on a little-endian machine.
const MAGIC: u32 = 0xeb9f;

/// Kinds of types (include/uapi/linux/btf.h).
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// Offsets in bytes of fields of structures of the running kernel, each given as structure and
/// field; also of one in a union or structure without a name inside. `None` if there is none, or it
/// does not begin with a byte.
///
/// # Errors
/// The kernel does not describe its types (`CONFIG_DEBUG_INFO_BTF`), or in a form that is not
/// known.
pub fn offsets<const N: usize>(fields: [(&str, &str); N]) -> io::Result<[Option<u32>; N]> {
    let bytes = fs::read(VMLINUX)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's BTF is malformed");
    let types = Types::parse(&bytes).ok_or_else(invalid)?;
    Ok(fields.map(|(structure, field)| types.offset_of(structure, field)))
}

/// All types, by their numbers less one.
struct Types<'b> {
    types: Vec<Type<'b>>,
    strings: &'b [u8],
}

#[derive(Clone, Copy)]
struct Type<'b> {
    name: u32,
    /// `None` unless it is a structure or a union.
    members: Option<&'b [u8]>,
}

/// Length of `struct btf_member`: name, type, offset in bits.
const MEMBER: usize = 12;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

impl<'b> Types<'b> {
    /// Reads `struct btf_header` and all types behind it.
    fn parse(bytes: &'b [u8]) -> Option<Self> {
        if word(bytes, 0)? & 0xffff != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let section = |offset: usize, length: usize| {
            let begin = header.checked_add(word(bytes, offset)? as usize)?;
            bytes.get(begin..)?.get(..word(bytes, length)? as usize)
        };
        let (mut rest, strings) = (section(8, 12)?, section(16, 20)?);
        let mut types = Vec::new();
        while !rest.is_empty() {
            let (name, info) = (word(rest, 0)?, word(rest, 4)?);
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let more = match kind {
                // INT, VAR, DECL_TAG
                1 | 14 | 17 => 4,
                // ARRAY
                3 => 12,
                STRUCT | UNION => count * MEMBER,
                // ENUM, FUNC_PROTO
                6 | 13 => count * 8,
                // DATASEC, ENUM64
                15 | 19 => count * 12,
                // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
                2 | 7..=12 | 16 | 18 => 0,
                _ => return None,
            };
            let members = rest.get(12..)?.get(..more)?;
            types.push(Type {
                name,
                members: matches!(kind, STRUCT | UNION).then_some(members),
            });
            rest = &rest[12 + more..];
        }
        Some(Self { types, strings })
    }

    fn offset_of(&self, structure: &str, field: &str) -> Option<u32> {
        let mut named = self.types.iter();
        let found = named.find(|one| one.members.is_some() && self.is(one.name, structure))?;
        let bits = self.bits(*found, field)?;
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Offset of a member in bits.
    fn bits(&self, of: Type<'_>, field: &str) -> Option<u32> {
        of.members?.chunks_exact(MEMBER).find_map(|member| {
            let (name, kind, offset) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            // Where there are bit fields, the upper eight bits are their widths.
            let offset = offset & 0x00ff_ffff;
            if self.is(name, field) {
                return Some(offset);
            }
            if !self.is(name, "") {
                return None;
            }
            let inner = self.types.get((kind as usize).checked_sub(1)?)?;
            Some(offset + self.bits(*inner, field)?)
        })
    }

    fn is(&self, name: u32, wanted: &str) -> bool {
        let text = self.strings.get(name as usize..).unwrap_or_default();
        text.strip_prefix(wanted.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; union { int b; int c; }; }`
    fn small() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0";
        let words: [&[u32]; 3] = [
            // INT `int`
            &[1, 1 << 24, 4, 32],
            // UNION without a name, and its members
            &[0, UNION << 24 | 2, 4, 13, 1, 0, 15, 1, 0],
            // STRUCT `outer`
            &[5, STRUCT << 24 | 2, 8, 11, 1, 0, 0, 2, 32],
        ];
        let types: Vec<u8> = words
            .concat()
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let header = [
            MAGIC | 1 << 16,
            24,
            0,
            types.len() as u32,
            types.len() as u32,
            strings.len() as u32,
        ];
        let header = header.iter().flat_map(|word| word.to_le_bytes());
        header.chain(types).chain(strings.iter().copied()).collect()
    }

    #[test]
    fn fields_are_found_also_in_a_union_without_a_name() {
        let bytes = small();
        let types = Types::parse(&bytes).expect("well-formed");
        assert_eq!(types.offset_of("outer", "a"), Some(0));
        assert_eq!(types.offset_of("outer", "c"), Some(4));
        assert_eq!(types.offset_of("outer", "d"), None);
        assert_eq!(types.offset_of("out", "a"), None);
        for length in 0..bytes.len() {
            // Whatever is missing: an answer or none, but no panic.
            let cut = Types::parse(&bytes[..length]);
            let _found = cut.and_then(|types| types.offset_of("outer", "c"));
        }
    }

    #[test]
    fn this_kernel_says_what_sockets_expect() {
        let fields = [
            ("sock_common", "skc_tw_rcv_nxt"),
            ("tcp_request_sock", "snt_isn"),
        ];
        for found in offsets(fields).expect("it has BTF") {
            assert!(
                found.is_some_and(|offset| offset > 0 && offset % 4 == 0),
                "{found:?}"
            );
        }
    }
}
