//! Schemas: what fields a kind has, their types, and how lists merge.
//!
//! One declaration with the `objects!` or `kind!` macro gives a serde struct and its [`Schema`]; docs come from the doc
//! comments. Decoding, strict validation, patch, apply and OpenAPI all read the schema, so they can never disagree with
//! the struct. Rust types name schema types through the [`Typed`] trait.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Group, version and kind of a top-level object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gvk {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

impl Gvk {
    /// `v1` or `discovery.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// One object type: a name, a line of documentation and its fields.
#[derive(Debug)]
pub struct Schema {
    /// OpenAPI definition name, such as `io.k8s.api.core.v1.Service`.
    pub name: &'static str,
    pub doc: &'static str,
    pub fields: &'static [Field],
    /// Set on kinds, absent on their parts.
    pub gvk: Option<Gvk>,
}

impl Schema {
    pub fn field(&self, json_name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == json_name)
    }

    /// Whether server-side apply owns objects of this type as a whole: selectors and references mean something only
    /// when they are complete.
    pub fn is_atomic(&self) -> bool {
        ATOMIC.contains(&self.short_name())
    }

    /// The last part of the name: `Service`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// Types that Kubernetes marks with `+structType=atomic`, and all selectors and references by keys.
const ATOMIC: &[&str] = &[
    "ConfigMapKeySelector",
    "EndpointAddress",
    "EndpointPort",
    "LabelSelector",
    "LocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "ResourceFieldSelector",
    "RoleRef",
    "SecretKeySelector",
    "Subject",
    "TypedLocalObjectReference",
];

/// One field of an object.
#[derive(Debug)]
pub struct Field {
    /// The name in JSON.
    pub name: &'static str,
    pub doc: &'static str,
    pub ty: Type,
    pub required: bool,
    pub list: ListType,
    /// How strategic merge patch treats the list; absent means "replace".
    pub patch: Option<PatchMeta>,
    /// Absent and zero differ (a pointer in Kubernetes' own types); such a field keeps an explicit zero.
    pub pointer: bool,
    /// Kubernetes writes the field even when it is empty.
    pub keep_empty: bool,
    /// A map that server-side apply owns as a whole.
    pub atomic_map: bool,
    /// A default that OpenAPI states, as JSON text.
    pub default: Option<&'static str>,
    /// The name of the Go type where errors show it and it is not the plain one, such as `v1.Protocol`.
    pub go_type: Option<&'static str>,
}

impl Field {
    pub const fn new(name: &'static str, doc: &'static str, ty: Type, pointer: bool) -> Self {
        let list = match ty {
            Type::List(_) => ListType::Atomic,
            _ => ListType::None,
        };
        Self {
            name,
            doc,
            ty,
            required: false,
            list,
            patch: None,
            pointer,
            keep_empty: false,
            atomic_map: false,
            default: None,
            go_type: None,
        }
    }

    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// A list whose items server-side apply tells apart by these keys.
    #[must_use]
    pub const fn map(mut self, keys: &'static [&'static str]) -> Self {
        self.list = ListType::Map(keys);
        self
    }

    /// A list of unique scalars.
    #[must_use]
    pub const fn set(mut self) -> Self {
        self.list = ListType::Set;
        self
    }

    /// Strategic merge: items are matched by this key.
    #[must_use]
    pub const fn merge(mut self, key: &'static str) -> Self {
        self.patch = Some(PatchMeta { merge_key: key, strategy: "merge" });
        self
    }

    /// Strategic merge of scalars: a union.
    #[must_use]
    pub const fn merge_set(mut self) -> Self {
        self.patch = Some(PatchMeta { merge_key: "", strategy: "merge" });
        self
    }

    /// As [`Field::merge`], and `$retainKeys` clears the other keys of an item.
    #[must_use]
    pub const fn merge_retain(mut self, key: &'static str) -> Self {
        self.patch = Some(PatchMeta { merge_key: key, strategy: "merge,retainKeys" });
        self
    }

    /// An object of which a patch keeps only the keys it names.
    #[must_use]
    pub const fn retain_keys(mut self) -> Self {
        self.patch = Some(PatchMeta { merge_key: "", strategy: "retainKeys" });
        self
    }

    #[must_use]
    pub const fn keep(mut self) -> Self {
        self.keep_empty = true;
        self
    }

    #[must_use]
    pub const fn atomic(mut self) -> Self {
        self.atomic_map = true;
        self
    }

    #[must_use]
    pub const fn or(mut self, json: &'static str) -> Self {
        self.default = Some(json);
        self
    }

    #[must_use]
    pub const fn go(mut self, name: &'static str) -> Self {
        self.go_type = Some(name);
        self
    }
}

/// The type of a field's value.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    Time,
    MicroTime,
    IntOrString,
    Quantity,
    /// Base64 text.
    Bytes,
    /// Free-form, kept as is.
    Any,
    StringMap,
    Map(&'static Type),
    List(&'static Type),
    Object(fn() -> &'static Schema),
}

impl Type {
    /// The schema of an object, or of the items of a list or map of objects.
    pub fn schema(&self) -> Option<&'static Schema> {
        match self {
            Type::Object(schema) => Some(schema()),
            Type::List(item) | Type::Map(item) => item.schema(),
            _ => None,
        }
    }
}

/// What server-side apply makes of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// Not a list.
    None,
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

/// `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchMeta {
    pub merge_key: &'static str,
    pub strategy: &'static str,
}

/// A Rust type that has a schema type.
pub trait Typed {
    const TYPE: Type;
    const POINTER: bool = false;
}

/// A value that may stand for "absent".
pub trait Absent {
    fn is_absent(&self) -> bool;
}

/// A top-level object: something with `apiVersion`, `kind` and `metadata`.
pub trait Object: Default {
    const GVK: Gvk;
    fn metadata(&self) -> &crate::meta::v1::ObjectMeta;
    fn metadata_mut(&mut self) -> &mut crate::meta::v1::ObjectMeta;
    /// An empty object with its type and name filled in. Cluster-scoped objects have an empty namespace.
    fn named(namespace: &str, name: &str) -> Self;
    fn schema() -> &'static Schema;
}

macro_rules! scalar {
    ($($rust:ty => $ty:expr, $absent:expr;)*) => {$(
        impl Typed for $rust {
            const TYPE: Type = $ty;
        }
        impl Absent for $rust {
            fn is_absent(&self) -> bool {
                let absent: fn(&$rust) -> bool = $absent;
                absent(self)
            }
        }
    )*};
}

scalar! {
    String => Type::String, String::is_empty;
    bool => Type::Bool, |b| !*b;
    i32 => Type::Int32, |n| *n == 0;
    i64 => Type::Int64, |n| *n == 0;
    crate::Time => Type::Time, |_| false;
    crate::MicroTime => Type::MicroTime, |_| false;
    crate::IntOrString => Type::IntOrString, |_| false;
    crate::Quantity => Type::Quantity, |q| q.0.is_empty();
    crate::Bytes => Type::Bytes, |b| b.0.is_empty();
    Value => Type::Any, Value::is_null;
}

impl<T: Typed + 'static> Typed for Vec<T> {
    const TYPE: Type = Type::List(&T::TYPE);
}

impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Typed + 'static> Typed for BTreeMap<String, T> {
    const TYPE: Type = match T::TYPE {
        Type::String => Type::StringMap,
        _ => Type::Map(&T::TYPE),
    };
}

impl<T> Absent for BTreeMap<String, T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Typed> Typed for Option<T> {
    const TYPE: Type = T::TYPE;
    const POINTER: bool = true;
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Typed> Typed for Box<T> {
    const TYPE: Type = T::TYPE;
}

/// Reads `null` as the empty value, as Kubernetes does.
pub(crate) fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares structs with their schemas.
///
/// ```text
/// objects! {
///     /// What the object is.
///     struct Rust("io.k8s.api.core.v1.OpenApiName") {
///         /// What the field is.
///         "jsonName" rust_name: Type [.required()],
///     }
/// }
/// ```
/// The brackets hold calls on [`Field`] that say how lists merge, and are optional.
macro_rules! objects {
    ($(
        $(#[doc = $doc:literal])*
        struct $name:ident($def:literal) $(gvk($gvk:expr))? {
            $( $(#[doc = $fdoc:literal])* $json:literal $field:ident : $ty:ty $([$($attr:tt)*])? , )*
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $(
                $(#[doc = $fdoc])*
                #[serde(
                    rename = $json,
                    default,
                    deserialize_with = "crate::schema::null_is_absent",
                    skip_serializing_if = "crate::schema::Absent::is_absent"
                )]
                pub $field: $ty,
            )*
        }

        impl $name {
            pub fn schema() -> &'static $crate::schema::Schema {
                static SCHEMA: $crate::schema::Schema = $crate::schema::Schema {
                    name: $def,
                    doc: concat!($($doc),*).trim_ascii(),
                    fields: &[$(
                        $crate::schema::Field::new(
                            $json,
                            concat!($($fdoc),*).trim_ascii(),
                            <$ty as $crate::schema::Typed>::TYPE,
                            <$ty as $crate::schema::Typed>::POINTER,
                        ) $($($attr)*)?
                    ),*],
                    gvk: objects!(@gvk $($gvk)?),
                };
                &SCHEMA
            }
        }

        impl $crate::schema::Typed for $name {
            const TYPE: $crate::schema::Type = $crate::schema::Type::Object($name::schema);
        }

        impl $crate::schema::Absent for $name {
            /// A part with nothing in it. Kubernetes writes `{}` for some of these; readers see no difference.
            fn is_absent(&self) -> bool {
                *self == Self::default()
            }
        }
    )*};
    (@gvk) => { None };
    (@gvk $gvk:expr) => { Some($gvk) };
}

/// Declares a top-level kind: as `objects!`, with `apiVersion`, `kind` and `metadata` added.
macro_rules! kind {
    (
        $(#[doc = $doc:literal])*
        $name:ident($def:literal, $group:literal, $version:literal) {
            $( $(#[doc = $fdoc:literal])* $json:literal $field:ident : $ty:ty $([$($attr:tt)*])? , )*
        }
    ) => {
        objects! {
            $(#[doc = $doc])*
            struct $name($def) gvk($crate::schema::Gvk { group: $group, version: $version, kind: stringify!($name) }) {
                /// Version of the schema of this object, such as `v1`.
                "apiVersion" api_version: String,
                /// What kind of object this is.
                "kind" kind: String,
                /// Name, labels and everything else that all objects have.
                "metadata" metadata: $crate::meta::v1::ObjectMeta,
                $( $(#[doc = $fdoc])* $json $field : $ty $([$($attr)*])? , )*
            }
        }

        impl $crate::schema::Object for $name {
            const GVK: $crate::schema::Gvk =
                $crate::schema::Gvk { group: $group, version: $version, kind: stringify!($name) };

            fn metadata(&self) -> &$crate::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut $crate::meta::v1::ObjectMeta {
                &mut self.metadata
            }

            fn named(namespace: &str, name: &str) -> Self {
                let mut object = Self { api_version: Self::GVK.api_version(), ..Self::default() };
                Self::GVK.kind.clone_into(&mut object.kind);
                namespace.clone_into(&mut object.metadata.namespace);
                name.clone_into(&mut object.metadata.name);
                object
            }

            fn schema() -> &'static $crate::schema::Schema {
                $name::schema()
            }
        }
    };
}

/// Declares a kind of version `v1` that is asked and answered, and not stored.
macro_rules! question {
    (
        $(#[doc = $doc:literal])*
        $name:ident($def:literal, $group:literal): $spec:ty => $status:ty
    ) => {
        kind! {
            $(#[doc = $doc])*
            $name($def, $group, "v1") {
                /// The question.
                "spec" spec: $spec [.required()],
                /// The answer.
                "status" status: Option<$status>,
            }
        }
    };
}

#[cfg(test)]
#[path = "merge_keys_tests.rs"]
mod merge_keys;
