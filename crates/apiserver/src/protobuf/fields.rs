//! Which field of which message has which number: `fields.txt`, read once.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Int,
    Bool,
    Bytes,
    Time,
    MicroTime,
    IntOrString,
    Quantity,
    /// JSON in bytes.
    Raw,
    /// A message with a list of texts, where a map holds lists.
    Texts,
    /// By its place among all messages.
    Message(usize),
    /// From text to this.
    Map(Box<Type>),
}

/// When JSON has the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// When it is not empty.
    WhenSet,
    /// Whenever protobuf has it: there, empty is not the same as absent.
    WhenThere,
    /// Always; protobuf always has it then.
    Always,
}

#[derive(Debug)]
pub(super) struct Field {
    number: u32,
    pub(super) name: &'static str,
    pub(super) ty: Type,
    pub(super) list: bool,
    pub(super) presence: Presence,
    /// The fields of the message stand in the outer object.
    pub(super) inline: bool,
}

#[derive(Debug)]
pub(super) struct Message {
    fields: Vec<Field>,
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

pub(super) struct Messages {
    all: Vec<Message>,
    /// By `package.Kind`.
    by_name: HashMap<&'static str, usize>,
}

impl Messages {
    pub(super) fn at(&self, index: usize) -> &Message {
        &self.all[index]
    }

    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let package = match api_version {
            // Options come under the version of what they are about.
            _ if kind == "DeleteOptions" => "meta",
            "v1" => "core",
            "apps/v1" => "apps",
            "authentication.k8s.io/v1" => "authentication",
            "authorization.k8s.io/v1" => "authorization",
            "autoscaling/v1" => "autoscaling",
            "coordination.k8s.io/v1" => "coordination",
            "discovery.k8s.io/v1" => "discovery",
            "events.k8s.io/v1" => "events",
            "networking.k8s.io/v1" => "networking",
            "policy/v1" => "policy",
            "rbac.authorization.k8s.io/v1" => "rbac",
            _ => return None,
        };
        self.by_name.get(&*format!("{package}.{kind}")).map(|index| self.at(*index))
    }
}

pub(super) fn messages() -> &'static Messages {
    static MESSAGES: LazyLock<Messages> = LazyLock::new(|| parse(include_str!("fields.txt")));
    &MESSAGES
}

fn parse(text: &'static str) -> Messages {
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    let names = lines().filter(|line| !line.starts_with(' '));
    let by_name: HashMap<&str, usize> = names.enumerate().map(|(index, name)| (name, index)).collect();
    let mut all: Vec<Message> = Vec::with_capacity(by_name.len());
    for line in lines() {
        match line.strip_prefix(' ') {
            None => all.push(Message { fields: Vec::new() }),
            Some(line) => {
                let fields = &mut all.last_mut().expect("a field stands under its message").fields;
                fields.push(field(line, &by_name).expect("the test reads every line"));
            }
        }
    }
    Messages { all, by_name }
}

fn field(line: &'static str, by_name: &HashMap<&str, usize>) -> Option<Field> {
    let (number, rest) = line.split_once(' ')?;
    let (marked, ty) = rest.split_once(' ')?;
    let (name, presence) = match (marked.strip_suffix('?'), marked.strip_suffix('!')) {
        (Some(name), _) => (name, Presence::WhenThere),
        (_, Some(name)) => (name, Presence::Always),
        _ => (marked, Presence::WhenSet),
    };
    let list = ty.starts_with("[]");
    let ty = type_of(ty.trim_start_matches("[]"), by_name)?;
    Some(Field { number: number.parse().ok()?, name, ty, list, presence, inline: name == "." })
}

fn type_of(text: &str, by_name: &HashMap<&str, usize>) -> Option<Type> {
    Some(match text {
        "text" => Type::Text,
        "int" => Type::Int,
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "intstr" => Type::IntOrString,
        "quantity" => Type::Quantity,
        "raw" => Type::Raw,
        "texts" => Type::Texts,
        _ => match text.strip_prefix("map:") {
            Some(inner) => Type::Map(Box::new(type_of(inner, by_name)?)),
            None => Type::Message(*by_name.get(text)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::resource::RESOURCES;

    #[test]
    fn every_kind_of_kubernetes_that_is_served_has_its_fields() {
        for resource in RESOURCES.iter().filter(|resource| resource.group != "portolan.dev") {
            let (version, kind) = (resource.api_version(), resource.kind);
            let message = messages().of_kind(&version, kind);
            assert!(message.is_some_and(|message| message.field(1).is_some()), "{kind} of {version}");
        }
        assert!(messages().of_kind("v1", "Nothing").is_none());
        assert!(messages().of_kind("apps/v2", "Deployment").is_none());
    }

    /// The schema that JSON is read by and the table name the same fields.
    #[test]
    fn what_json_calls_a_field_the_table_does_too() {
        let service = messages().of_kind("v1", "Service").unwrap();
        let Type::Message(spec) = service.field(2).unwrap().ty else { panic!("spec is a message") };
        let port = messages().at(spec).field(1).unwrap();
        assert_eq!((port.name, port.list), ("ports", true));
        let Type::Message(port) = port.ty else { panic!("a port is a message") };
        let names: Vec<&str> = messages().at(port).fields.iter().map(|field| field.name).collect();
        assert_eq!(names, ["name", "protocol", "port", "targetPort", "nodePort", "appProtocol"]);
    }
}
