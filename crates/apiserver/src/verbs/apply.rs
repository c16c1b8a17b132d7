//! PATCH as server-side apply: all that one manager wants of an object, which is made if it is not there.

use http::{Response, StatusCode};
use portolan_api::field::go_quote;
use portolan_api::{Time, decode, status};
use serde_json::{Value, json};

use crate::authz::{self, Attributes};
use crate::body::Body;
use crate::call::{self, Call, Validation, WriteOptions};
use crate::errors::{ApiError, Result};
use crate::managed::{self, Apply, Manager, Operation};
use crate::object::{meta, meta_mut};
use crate::verbs::patch::undecodable;
use crate::verbs::update::check_name;
use crate::write::{At, Part, Writer, scope};
use crate::{content, metadata, patch, respond, yaml};

/// Answers with the object as it is now.
pub(crate) async fn run(
    call: &Call,
    part: Part,
    options: WriteOptions,
    mut warnings: Vec<String>,
) -> Result<Response<Body>> {
    let config = config(call)?;
    let twice =
        if options.validation == Validation::Ignore { Vec::new() } else { yaml::keys_twice(&call.body) };
    if !twice.is_empty() && options.validation == Validation::Strict {
        let error = yaml::strict_error(&twice);
        let text = format!("error strict decoding YAML: error converting YAML to JSON: {error}");
        return Err(status::bad_request(text).into());
    }
    warnings.extend(twice);
    let manager = call.manager(Operation::Apply);
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    if part == Part::Main && call.server.store().get(&at.key()).await?.0.is_none() {
        if let Some(uid) = meta(&config, "uid") {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(status::conflict_because(call.resource, at.name, &why).into());
        }
        let empty = json!({
            "apiVersion": call.resource.api_version(),
            "kind": call.resource.kind,
            "metadata": { "name": at.name },
        });
        let object = applied(call, part, &manager, &empty, &config)?;
        let what = Attributes::Resource {
            verb: "create",
            group: call.resource.group,
            resource: call.resource.plural,
            subresource: None,
            namespace: call.namespace.as_deref(),
            name: Some(at.name),
            on_node: None,
        };
        if let Err(why) = authz::authorize(&call.server, &call.user, what).await {
            return Err(call::forbidden(call.resource, at.name, why));
        }
        call.may_write(None, &object)?;
        let made = call
            .server
            .insert_by(Writer::Applied, call.resource, object, options.dry_run, &mut warnings)
            .await;
        match made {
            // Somebody else was faster: apply to what they made.
            Err(error) if error.is("AlreadyExists") => {}
            made => return respond::written(call, made.map(|bytes| (StatusCode::CREATED, bytes)), &warnings),
        }
    }
    let change = &mut |live: &Value| {
        let new = applied(call, part, &manager, live, &config)?;
        call.may_write(Some(live), &new)?;
        Ok(new)
    };
    let changed = call.server.change_by(Writer::Applied, at, part, options.dry_run, &mut warnings, change);
    let changed = changed.await;
    respond::written(call, changed.map(|bytes| (StatusCode::OK, bytes)), &warnings)
}

/// The object in the body; it must be one for this path.
fn config(call: &Call) -> Result<Value> {
    let bad = |text: String| Err(ApiError::from(status::bad_request(text)));
    let mut config = match yaml::value(&call.body) {
        Ok(config) if config.is_object() => config,
        Ok(other) => {
            return bad(format!(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go \
                 value of type map[string]interface {{}}",
                patch::json_type(&other)
            ));
        }
        Err(error) => return bad(format!("error decoding YAML: {error}")),
    };
    if config["metadata"].get("managedFields").is_some_and(|v| !v.is_null()) {
        return bad("metadata.managedFields must be nil".into());
    }
    let (version, expected) =
        (config["apiVersion"].as_str().unwrap_or_default(), call.resource.api_version());
    if version != expected {
        return bad(format!(
            "incorrect version specified in apply patch. Specified patch version: {version}, expected: {expected}"
        ));
    }
    let kind = config["kind"].as_str().unwrap_or_default();
    if kind != call.resource.kind {
        return bad(format!(
            "the kind in the body ({}) is not that of the path ({})",
            go_quote(kind),
            call.resource.kind
        ));
    }
    if meta(&config, "name").is_none() {
        meta_mut(&mut config).insert("name".into(), call.object_name().into());
    }
    check_name(call, &config)?;
    metadata::place(&mut config, call.namespace.as_deref())?;
    Ok(config)
}

/// The live object with what the body says, and with who owns what.
fn applied(call: &Call, part: Part, manager: &Manager, live: &Value, config: &Value) -> Result<Value> {
    let resource = call.resource;
    let place = if call.ns().is_empty() {
        call.object_name().into()
    } else {
        format!("{}/{}", call.ns(), call.object_name())
    };
    let about = format!("{place}; {}/{}, Kind={}", resource.group, resource.version, resource.kind);
    let how = Apply {
        schema: (resource.schema)(),
        scope: scope(part, resource),
        manager,
        force: call.query.flag("force") == Some(true),
        about: &about,
        now: Time::now(),
    };
    let mut object = managed::apply(how, live, config).map_err(ApiError)?;
    let record = meta_mut(&mut object).remove("managedFields");
    let decoded = decode::check(&object, how.schema).map_err(|error| undecodable(call, &object, error))?;
    let mut object = content::accept(resource, decoded, Validation::Ignore, &mut Vec::new())?;
    if let Some(record) = record {
        meta_mut(&mut object).insert("managedFields".into(), record);
    }
    Ok(object)
}
