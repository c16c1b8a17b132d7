//! Objects from files: every `.yaml`, `.yml` and `.json` file of a directory, or one file, with any number of documents.
//!
//! Each object is read, defaulted and checked as the API server would; what it would refuse is a problem to tell, and
//! the object is used all the same as far as it goes. What a cluster would add is [`super::invent`]'s matter.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portolan_api::{decode, resource};
use serde_json::{Value, json};

use super::objects::{Objects, name_of, set, text};
use super::report::{Problem, ProblemKind};

const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];
/// A directory of more files than this is probably not the one that was meant.
const FILES_MAX: usize = 10_000;

pub(crate) fn read(path: &Path, default_namespace: &str) -> anyhow::Result<Objects> {
    let mut files = Vec::new();
    find(path, &mut files)?;
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{}: no .yaml, .yml or .json file there", path.display());
    let mut objects = Objects::default();
    for file in files {
        let content = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for document in documents(&content).with_context(|| file.display().to_string())? {
            take(document, default_namespace, &mut objects);
        }
    }
    Ok(objects)
}

fn find(path: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        anyhow::ensure!(path.exists(), "{}: no such file or directory", path.display());
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        let known = path.extension().is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known));
        if path.is_dir() || known {
            find(&path, found)?;
        }
        anyhow::ensure!(found.len() <= FILES_MAX, "more than {FILES_MAX} files");
    }
    Ok(())
}

fn documents(content: &str) -> anyhow::Result<Vec<Value>> {
    let options = serde_saphyr::options! { strict_booleans: true, legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(content, options).map_err(|error| {
        // The library's message continues with a picture of the source; the first line says it.
        anyhow::anyhow!("{}", error.to_string().lines().next().unwrap_or_default().to_owned())
    })
}

fn take(mut document: Value, default_namespace: &str, objects: &mut Objects) {
    let kind = text(&document, "/kind").to_owned();
    if kind.ends_with("List") && document["items"].is_array() {
        for item in document["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            take(item, default_namespace, objects);
        }
        return;
    }
    if !document.is_object() || kind.is_empty() {
        return;
    }
    let api_version = text(&document, "/apiVersion").to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let known = resource::find_kind(group, version, &kind);
    if known.is_none_or(|resource| resource.namespaced) && text(&document, "/metadata/namespace").is_empty() {
        set(&mut document, &["metadata", "namespace"], json!(default_namespace));
    }
    let Some(list) = list_of(group, &kind, objects) else {
        *objects.ignored.entry(kind).or_default() += 1;
        return;
    };
    // Checked after it has a place, so that a wrong one is still there to be asked about.
    let index = list.len();
    list.push(document);
    if let Some(resource) = known {
        check(resource, index, group, &kind, objects);
    }
}

fn list_of<'a>(group: &str, kind: &str, objects: &'a mut Objects) -> Option<&'a mut Vec<Value>> {
    Some(match (group, kind) {
        ("", "Service") => &mut objects.services,
        ("", "Endpoints") => &mut objects.endpoints,
        ("", "Pod") => &mut objects.pods,
        ("", "Node") => &mut objects.nodes,
        ("discovery.k8s.io", "EndpointSlice") => &mut objects.slices,
        ("networking.k8s.io", "ServiceCIDR") => &mut objects.service_cidrs,
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => &mut objects.workloads,
        _ => return None,
    })
}

/// Reads the object as the API server does and puts the defaulted one in its place.
fn check(
    resource: &'static resource::Resource,
    index: usize,
    group: &str,
    kind: &str,
    objects: &mut Objects,
) {
    let Some(list) = list_of(group, kind, objects) else { return };
    let mut said = Vec::new();
    let name = name_of(&list[index]);
    match decode::check(&list[index], (resource.schema)()) {
        Ok(decoded) => {
            said.extend(decoded.problems.iter().map(ToString::to_string));
            list[index] = decoded.value;
            resource.strategy.default(&mut list[index]);
            if matches!(kind, "Pod" | "Endpoints" | "EndpointSlice") {
                let errors = resource.strategy.validate_create(&list[index]);
                said.extend(errors.iter().map(ToString::to_string));
            }
        }
        Err(error) => said.push(error.to_string()),
    }
    objects.problems.extend(said.iter().map(|error| refused(kind, &name, error)));
}

fn refused(kind: &str, name: &str, error: &str) -> Problem {
    let what = format!("{kind} {name}: the API server would refuse it: {error}");
    let way_out = "correct the manifest; kubectl apply would not take it";
    Problem::new(ProblemKind::RefusedByApi, what, way_out).about(name)
}

/// Services are checked once they have their addresses and ports: the server allocates before it validates.
pub(crate) fn check_services(objects: &mut Objects) {
    let Some(resource) = resource::find("", "v1", "services") else { return };
    for service in &objects.services {
        let name = name_of(service);
        let errors = resource.strategy.validate_create(service);
        objects.problems.extend(errors.iter().map(|error| refused("Service", &name, &error.to_string())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_kinds_that_do_not_matter() {
        let content = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n\
                       - {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: shop}}\n\
                       - {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n";
        let mut objects = Objects::default();
        documents(content).unwrap().into_iter().for_each(|d| take(d, "default", &mut objects));
        let names: Vec<String> = objects.pods.iter().map(name_of).collect();
        assert_eq!(names, ["default/a", "shop/b"]);
        assert_eq!(objects.ignored.get("ConfigMap"), Some(&1));
    }

    #[test]
    fn what_the_api_server_would_refuse_is_said_and_used_all_the_same() {
        let content = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selectr: {app: web}, \
                       sessionAffinity: ClientIp, ports: [{port: 80}]}}";
        let mut objects = Objects::default();
        documents(content).unwrap().into_iter().for_each(|d| take(d, "default", &mut objects));
        check_services(&mut objects);
        assert_eq!(objects.services.len(), 1);
        let said: Vec<&str> = objects.problems.iter().map(|problem| &*problem.what).collect();
        assert!(said.iter().any(|text| text.contains("spec.selectr")), "{said:?}");
        assert!(said.iter().any(|text| text.contains("ClientIp")), "{said:?}");
    }
}
