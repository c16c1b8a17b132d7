//! Types of keys and data, numbered as the `nft` tool numbers them.
//!
//! The kernel keeps only lengths; the numbers travel with a set so that `nft list` can print its elements. A
//! concatenation's number is its fields' numbers side by side, six bits each, the first field highest.

/// Bits of one field's number within a concatenation's number.
const TYPE_BITS: u32 = 6;

/// The number the kernel itself reserves for maps whose data is a verdict.
pub(crate) const DATA_VERDICT: u32 = 0xffff_ff00;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    NfProto,
    Ipv4Addr,
    Ipv6Addr,
    InetProto,
    InetService,
    /// Four bytes, host-endian, printed in hexadecimal: also good for indexes and ids of our own, as every version of
    /// `nft` can print it as part of a concatenation.
    Mark,
    IfIndex,
    /// Four bytes, host-endian, printed as `major:minor`.
    ClassId,
    IfName,
    /// Host-endian integer of this many bytes. Older versions of `nft` cannot print one inside a concatenation.
    Integer(u8),
    /// A type that this project never makes, with its length in bytes.
    Other {
        id: u8,
        len: u8,
    },
}

/// How a type's bytes are ordered, as `nft` numbers it in a set's userdata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Invalid = 0,
    Host = 1,
    Big = 2,
}

impl FieldType {
    pub const fn id(self) -> u8 {
        match self {
            Self::NfProto => 2,
            Self::Integer(_) => 4,
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::IfIndex => 20,
            Self::ClassId => 29,
            Self::IfName => 41,
            Self::Other { id, .. } => id,
        }
    }

    /// Length in bytes, without padding.
    pub const fn len(self) -> usize {
        match self {
            Self::NfProto | Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark | Self::IfIndex | Self::ClassId => 4,
            Self::Ipv6Addr | Self::IfName => 16,
            Self::Integer(len) | Self::Other { len, .. } => len as usize,
        }
    }

    /// Never: every type has bytes.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Length as a field of a concatenation: whole four-byte registers.
    pub const fn padded_len(self) -> usize {
        self.len().next_multiple_of(4)
    }

    /// Registers a field occupies.
    pub const fn registers(self) -> u8 {
        (self.padded_len() / 4) as u8
    }

    pub(crate) const fn byte_order(self) -> ByteOrder {
        match self {
            Self::Ipv4Addr | Self::Ipv6Addr | Self::InetProto | Self::InetService => ByteOrder::Big,
            Self::NfProto | Self::Mark | Self::IfIndex | Self::ClassId | Self::IfName | Self::Integer(_) => {
                ByteOrder::Host
            }
            Self::Other { .. } => ByteOrder::Invalid,
        }
    }

    fn of(id: u8, len: usize) -> Self {
        let known = match id {
            2 => Self::NfProto,
            7 => Self::Ipv4Addr,
            8 => Self::Ipv6Addr,
            12 => Self::InetProto,
            13 => Self::InetService,
            19 => Self::Mark,
            20 => Self::IfIndex,
            29 => Self::ClassId,
            41 => Self::IfName,
            4 => Self::Integer(len as u8),
            _ => Self::Other { id, len: len as u8 },
        };
        if known.len() == len { known } else { Self::Other { id, len: len as u8 } }
    }
}

/// The type of a set's key or of a map's data: one field, or a concatenation of several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyType(Vec<FieldType>);

impl KeyType {
    pub fn new(fields: impl Into<Vec<FieldType>>) -> Self {
        Self(fields.into())
    }

    pub fn fields(&self) -> &[FieldType] {
        &self.0
    }

    pub fn is_concat(&self) -> bool {
        self.0.len() > 1
    }

    /// Bytes of a whole key; fields of a concatenation are padded, a single field is not.
    pub fn len(&self) -> usize {
        match self.0.as_slice() {
            [single] => single.len(),
            fields => fields.iter().map(|field| field.padded_len()).sum(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number under which `nft` knows the type. Only five fields fit; a longer concatenation keeps its last five,
    /// and `nft` then prints it wrongly, while the kernel does not mind.
    pub fn id(&self) -> u32 {
        self.0.iter().fold(0, |id, field| (id << TYPE_BITS) | u32::from(field.id()))
    }

    pub(crate) fn byte_order(&self) -> ByteOrder {
        match self.0.as_slice() {
            [single] => single.byte_order(),
            _ => ByteOrder::Invalid,
        }
    }

    /// Reads a type back from its number and its length. `field_lens` (unpadded) come with concatenated intervals; in
    /// other concatenations one integer's length follows from the rest.
    pub(crate) fn from_id(id: u32, len: usize, field_lens: &[u32]) -> Self {
        let ids: Vec<u8> = (0..5)
            .rev()
            .map(|field| ((id >> (field * TYPE_BITS)) & ((1 << TYPE_BITS) - 1)) as u8)
            .skip_while(|id| *id == 0)
            .collect();
        if ids.len() < 2 {
            return Self(vec![FieldType::of(id as u8, len)]);
        }
        let known_len = |id| -> usize {
            match id {
                2 | 12 => 1,
                13 => 2,
                7 | 19 | 20 | 29 => 4,
                9 => 6,
                8 | 41 => 16,
                _ => 0,
            }
        };
        let unknown = ids.iter().filter(|id| known_len(**id) == 0).count().max(1);
        let rest = len.saturating_sub(ids.iter().map(|id| known_len(*id).next_multiple_of(4)).sum());
        let fields = ids.iter().enumerate().map(|(index, id)| {
            let field_len = match (field_lens.get(index), known_len(*id)) {
                (Some(len), _) => *len as usize,
                (None, 0) => rest / unknown,
                (None, known) => known,
            };
            FieldType::of(*id, field_len)
        });
        Self(fields.collect())
    }
}

impl From<FieldType> for KeyType {
    fn from(field: FieldType) -> Self {
        Self(vec![field])
    }
}

impl<const N: usize> From<[FieldType; N]> for KeyType {
    fn from(fields: [FieldType; N]) -> Self {
        Self(fields.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concatenation_survives_its_number() {
        let key = KeyType::from([FieldType::Ipv4Addr, FieldType::InetProto, FieldType::InetService]);
        // 7, 12 and 13, six bits each.
        assert_eq!((key.id(), key.len()), (0x730d, 12));
        assert_eq!(KeyType::from_id(key.id(), key.len(), &[]), key);
    }

    #[test]
    fn an_integer_takes_the_length_that_is_left() {
        let key = KeyType::from([FieldType::Ipv6Addr, FieldType::Integer(4)]);
        assert_eq!(KeyType::from_id(key.id(), key.len(), &[]), key);
        let single = KeyType::from(FieldType::Integer(2));
        assert_eq!(KeyType::from_id(single.id(), single.len(), &[]), single);
    }
}
