//! Discovery documents from the list of resources: which groups, versions and resources are served.
//!
//! `/api`, `/apis`, `/apis/G`, `/api/v1` and `/apis/G/V`, and the aggregated form of newer clients, which answers `/api`
//! and `/apis` with everything at once. Built once; HTTP is the caller's. Start with [`Discovery::new`].

use std::collections::HashMap;

use portolan_api::resource::{RESOURCES, Resource, is_act};
use serde_json::{Map, Value, json};

use crate::document::Document;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_BETA: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// All discovery documents.
pub struct Discovery {
    plain: HashMap<String, Document>,
    /// By path and content type.
    aggregated: HashMap<(&'static str, &'static str), Document>,
}

impl Default for Discovery {
    fn default() -> Discovery {
        Discovery::new()
    }
}

impl Discovery {
    pub fn new() -> Discovery {
        let groups = Group::all(RESOURCES);
        let named: Vec<&Group> = groups.iter().filter(|group| !group.name.is_empty()).collect();
        let mut plain = HashMap::new();
        plain.insert("/api".to_owned(), Document::json(&core_versions(&groups)));
        let list: Vec<Value> = named.iter().map(|group| group.summary()).collect();
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list});
        plain.insert("/apis".to_owned(), Document::json(&list));
        for group in &groups {
            if !group.name.is_empty() {
                let mut summary = group.summary();
                summary["kind"] = "APIGroup".into();
                summary["apiVersion"] = "v1".into();
                plain.insert(format!("/apis/{}", group.name), Document::json(&summary));
            }
            for (version, resources) in &group.versions {
                plain.insert(
                    resources[0].root_path(),
                    Document::json(&group.resource_list(version, resources)),
                );
            }
        }
        let mut aggregated = HashMap::new();
        for (content_type, api_version) in
            [(AGGREGATED, "apidiscovery.k8s.io/v2"), (AGGREGATED_BETA, "apidiscovery.k8s.io/v2beta1")]
        {
            for (path, core) in [("/api", true), ("/apis", false)] {
                let items: Vec<Value> = groups
                    .iter()
                    .filter(|group| group.name.is_empty() == core)
                    .map(Group::aggregated)
                    .collect();
                let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items});
                aggregated.insert((path, content_type), Document::new(content_type, list.to_string()));
            }
        }
        Discovery { plain, aggregated }
    }

    /// The document at `path` (`/api`, `/apis`, `/api/v1`, `/apis/apps`, `/apis/apps/v1`; no trailing slash) in the form
    /// the Accept header prefers. None: no such path.
    pub fn get(&self, path: &str, accept: &str) -> Option<&Document> {
        accepted(accept)
            .and_then(|content_type| {
                let path = if path == "/api" { "/api" } else { "/apis" };
                self.aggregated.get(&(path, content_type))
            })
            .filter(|_| path == "/api" || path == "/apis")
            .or_else(|| self.plain.get(path))
    }
}

/// The aggregated form that the client prefers to plain JSON, if it does.
fn accepted(accept: &str) -> Option<&'static str> {
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters: HashMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
        let parameter = |name| parameters.get(name).copied().unwrap_or_default();
        match (media_type, parameter("g"), parameter("as"), parameter("v")) {
            ("application/json", "apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2") => {
                return Some(AGGREGATED);
            }
            ("application/json", "apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2beta1") => {
                return Some(AGGREGATED_BETA);
            }
            ("application/json" | "*/*" | "application/*", "", "", _) => return None,
            _ => {}
        }
    }
    None
}

/// The resources of one API group, by version.
struct Group {
    name: &'static str,
    versions: Vec<(&'static str, Vec<&'static Resource>)>,
}

impl Group {
    /// In the order of the list; versions of a group likewise, so the first is preferred.
    fn all(resources: &[&'static Resource]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for resource in resources {
            let index = groups.iter().position(|group| group.name == resource.group).unwrap_or_else(|| {
                groups.push(Group { name: resource.group, versions: Vec::new() });
                groups.len() - 1
            });
            let versions = &mut groups[index].versions;
            match versions.iter_mut().find(|(version, _)| *version == resource.version) {
                Some((_, list)) => list.push(resource),
                None => versions.push((resource.version, vec![resource])),
            }
        }
        for (_, resources) in groups.iter_mut().flat_map(|group| &mut group.versions) {
            resources.sort_by_key(|resource| resource.plural);
        }
        groups
    }

    fn summary(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(version, resources)| json!({"groupVersion": resources[0].api_version(), "version": version}))
            .collect();
        json!({"name": self.name, "preferredVersion": versions[0], "versions": versions})
    }

    fn resource_list(&self, version: &str, resources: &[&Resource]) -> Value {
        let entries: Vec<Value> = resources.iter().flat_map(|resource| entries(resource)).collect();
        let mut list = json!({"kind": "APIResourceList", "resources": entries});
        if self.name.is_empty() {
            list["groupVersion"] = version.into();
        } else {
            list["apiVersion"] = "v1".into();
            list["groupVersion"] = format!("{}/{version}", self.name).into();
        }
        list
    }

    fn aggregated(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<Value> =
                    resources.iter().map(|resource| aggregated_entry(resource)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if self.name.is_empty() { json!({}) } else { json!({"name": self.name}) };
        json!({"metadata": metadata, "versions": versions})
    }
}

fn core_versions(groups: &[Group]) -> Value {
    let versions: Vec<&str> = groups
        .iter()
        .filter(|group| group.name.is_empty())
        .flat_map(|group| group.versions.iter().map(|(version, _)| *version))
        .collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    })
}

/// The resource and its subresources, each an entry of its own.
fn entries(resource: &Resource) -> Vec<Value> {
    let mut main = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs(resource),
    });
    add_names(&mut main, resource);
    let mut all = vec![main];
    all.extend(resource.subresources.iter().map(|subresource| {
        let mut entry = json!({
            "name": format!("{}/{subresource}", resource.plural),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": subresource_verbs(subresource),
        });
        if let (Some(other), Some(entry)) = (other_kind(resource, subresource), entry.as_object_mut()) {
            entry.extend(other);
        }
        entry
    }));
    all
}

fn aggregated_entry(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(resource),
    });
    add_names(&mut entry, resource);
    if !resource.subresources.is_empty() {
        let subresources = resource.subresources.iter().map(|subresource| {
            let kind = other_kind(resource, subresource).map_or_else(|| kind.clone(), Value::Object);
            json!({"subresource": subresource, "responseKind": kind, "verbs": subresource_verbs(subresource)})
        });
        entry["subresources"] = subresources.collect();
    }
    entry
}

fn verbs(resource: &Resource) -> &'static [&'static str] {
    if resource.stored { VERBS } else { &["create"] }
}

fn add_names(entry: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.into();
    }
}

/// The kind of a subresource that is not of its resource's own.
fn other_kind(resource: &Resource, subresource: &str) -> Option<Map<String, Value>> {
    let options = format!("{}ProxyOptions", resource.kind);
    let (group, version, kind) = match subresource {
        "proxy" => ("", "v1", options.as_str()),
        "scale" => ("autoscaling", "v1", "Scale"),
        "binding" => ("", "v1", "Binding"),
        "eviction" => ("policy", "v1", "Eviction"),
        "exec" => ("", "v1", "PodExecOptions"),
        "attach" => ("", "v1", "PodAttachOptions"),
        "portforward" => ("", "v1", "PodPortForwardOptions"),
        "token" => ("authentication.k8s.io", "v1", "TokenRequest"),
        _ => return None,
    };
    let fields = [("group", group), ("version", version), ("kind", kind)];
    Some(fields.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect())
}

fn subresource_verbs(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "finalize" => &["update"],
        "log" => &["get"],
        "attach" | "exec" | "portforward" => &["create", "get"],
        "proxy" => &["create", "delete", "get", "patch", "update"],
        act if is_act(act) => &["create"],
        _ => &["get", "patch", "update"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, accept: &str) -> Value {
        serde_json::from_slice(&Discovery::new().get(path, accept).unwrap().body).unwrap()
    }

    #[test]
    fn core_resources_are_listed_with_their_subresources() {
        let list = get("/api/v1", "application/json");
        let resources = list["resources"].as_array().unwrap();
        let find = |name: &str| resources.iter().find(|resource| resource["name"] == name).unwrap();
        assert_eq!(list["groupVersion"], "v1");
        assert_eq!(find("services")["shortNames"], json!(["svc"]));
        assert_eq!(find("services")["categories"], json!(["all"]));
        assert_eq!(find("services")["singularName"], "service");
        assert_eq!(find("services/status")["verbs"], json!(["get", "patch", "update"]));
        for (name, kind) in [("services", "Service"), ("pods", "Pod"), ("nodes", "Node")] {
            let proxy = find(&format!("{name}/proxy"));
            assert_eq!(proxy["verbs"], json!(["create", "delete", "get", "patch", "update"]));
            assert_eq!(proxy["kind"], format!("{kind}ProxyOptions"));
        }
        assert_eq!(find("namespaces/finalize")["verbs"], json!(["update"]));
        assert_eq!(find("nodes")["namespaced"], false);
    }

    #[test]
    fn groups_name_their_versions() {
        let groups = get("/apis", "*/*");
        let names: Vec<&str> =
            groups["groups"].as_array().unwrap().iter().filter_map(|g| g["name"].as_str()).collect();
        assert!(names.contains(&"discovery.k8s.io") && !names.contains(&""), "{names:?}");
        let group = get("/apis/discovery.k8s.io", "");
        assert_eq!(group["kind"], "APIGroup");
        assert_eq!(
            group["preferredVersion"],
            json!({"groupVersion": "discovery.k8s.io/v1", "version": "v1"})
        );
        assert_eq!(get("/apis/discovery.k8s.io/v1", "")["groupVersion"], "discovery.k8s.io/v1");
        assert_eq!(get("/api", "")["versions"], json!(["v1"]));
        assert!(Discovery::new().get("/apis/none", "").is_none());
    }

    #[test]
    fn newer_clients_get_everything_at_once() {
        let accept = format!("{AGGREGATED},{AGGREGATED_BETA},application/json");
        let discovery = Discovery::new();
        assert_eq!(discovery.get("/apis", &accept).unwrap().content_type, AGGREGATED);
        assert_eq!(
            discovery.get("/apis", &format!("application/json,{AGGREGATED}")).unwrap().content_type,
            "application/json"
        );
        assert_eq!(discovery.get("/api/v1", &accept).unwrap().content_type, "application/json");
        let core = get("/api", &accept);
        let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
        let services = resources.iter().find(|resource| resource["resource"] == "services").unwrap();
        assert_eq!(services["scope"], "Namespaced");
        assert_eq!(services["responseKind"], json!({"group": "", "version": "v1", "kind": "Service"}));
        assert_eq!(services["subresources"][1]["subresource"], "status");
    }
}
