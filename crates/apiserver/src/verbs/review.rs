//! Questions that are answered and not kept: who may do what, and who somebody is. `kubectl auth can-i` and
//! `kubectl auth whoami` ask them.

use http::{Response, StatusCode};
use portolan_api::authentication::v1::{TokenReview, UserInfo};
use portolan_api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use portolan_api::field::FieldError;
use portolan_api::resource::{LOCAL_SUBJECT_ACCESS_REVIEWS, PODS, find};
use portolan_api::selector::FieldQuery;
use portolan_api::{Time, status};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::authn::User;
use crate::authz::{self, Attributes, node};
use crate::body::Body;
use crate::call::{Call, Verb, WriteOptions};
use crate::errors::Result;
use crate::{content, metadata, object, respond};

/// Answers with the question and its answer.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    if call.verb != Verb::Create || call.name.is_some() {
        return Err(status::method_not_allowed(call.resource, call.verb.name()).into());
    }
    if call.resource.namespaced && call.namespace.is_none() {
        return Err(status::no_such_path().into());
    }
    let options = WriteOptions::read(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let mut review = content::object(call, options.validation, &mut warnings)?;
    metadata::place(&mut review, call.namespace.as_deref())?;
    review["status"] = match call.resource.kind {
        "SelfSubjectReview" => {
            review["metadata"]["creationTimestamp"] = Time::now().to_string().into();
            json!({ "userInfo": info(&call.user) })
        }
        "SelfSubjectRulesReview" => rules(call, &review)?,
        "TokenReview" => token(call, &read::<TokenReview>(&review)?).await,
        _ => access(call, &read::<SubjectAccessReview>(&review)?.spec).await?,
    };
    respond::object(call, StatusCode::CREATED, object::encode(&review), &warnings)
}

fn read<T: DeserializeOwned>(review: &Value) -> Result<T> {
    T::deserialize(review).map_err(|error| status::bad_request(error.to_string()).into())
}

fn info(user: &User) -> UserInfo {
    UserInfo {
        username: user.name.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
    }
}

/// Whether someone may do something. Questions about the caller have no user in them.
async fn access(call: &Call, spec: &SubjectAccessReviewSpec) -> Result<Value> {
    let own = call.resource.kind == "SelfSubjectAccessReview";
    let errors = wrong(call, spec, own);
    if !errors.is_empty() {
        return Err(status::invalid_kind(call.resource.group, call.resource.kind, "", &errors).into());
    }
    let asked = User {
        name: spec.user.clone(),
        uid: spec.uid.clone(),
        groups: spec.groups.clone(),
        extra: spec.extra.clone(),
    };
    let user = if own { &call.user } else { &asked };
    let fields = spec.resource_attributes.as_ref().map(selected).unwrap_or_default();
    let what = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(attributes), _) => of_resource(attributes, &fields),
        (None, Some(NonResourceAttributes { path, verb })) => Attributes::Path { verb, path },
        (None, None) => return Err(status::internal_error("a question about nothing").into()),
    };
    let decision = authz::decide(&call.server, user, what).await;
    let mut answer = json!({ "allowed": decision.allowed });
    if !decision.reason.is_empty() {
        answer["reason"] = decision.reason.into();
    }
    Ok(answer)
}

fn of_resource<'a>(attributes: &'a ResourceAttributes, fields: &'a FieldQuery) -> Attributes<'a> {
    let some = |text: &'a String| (!text.is_empty()).then_some(text.as_str());
    Attributes::Resource {
        verb: &attributes.verb,
        group: &attributes.group,
        resource: &attributes.resource,
        subresource: some(&attributes.subresource),
        namespace: some(&attributes.namespace),
        name: some(&attributes.name).or(fields.exact("metadata.name")),
        on_node: fields.exact("spec.nodeName"),
    }
}

/// The field selector of a question, in one of its two forms. What cannot be read leaves everything.
fn selected(attributes: &ResourceAttributes) -> FieldQuery {
    let Some(selector) = &attributes.field_selector else { return FieldQuery::default() };
    let exact = |requirement: &portolan_api::authorization::v1::SelectorRequirement| {
        let [value] = requirement.values.as_slice() else { return None };
        (requirement.operator == "In").then(|| format!("{}={value}", requirement.key))
    };
    let text = if selector.requirements.is_empty() {
        selector.raw_selector.clone()
    } else {
        selector.requirements.iter().filter_map(exact).collect::<Vec<_>>().join(",")
    };
    let resource = find(&attributes.group, "v1", &attributes.resource).unwrap_or(&PODS);
    FieldQuery::parse(&text, resource).unwrap_or_default()
}

fn wrong(call: &Call, spec: &SubjectAccessReviewSpec, own: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), Some(_)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", Value::Null, detail));
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", Value::Null, detail));
        }
        _ => {}
    }
    if !own && spec.user.is_empty() && spec.groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", "", detail));
    }
    if call.resource.kind == LOCAL_SUBJECT_ACCESS_REVIEWS.kind {
        let namespace = spec.resource_attributes.as_ref().map_or("", |a| a.namespace.as_str());
        if spec.non_resource_attributes.is_some() {
            let detail = "disallowed on this kind of request";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", Value::Null, detail));
        } else if namespace != call.ns() {
            let detail = "must match metadata.namespace";
            errors.push(FieldError::invalid("spec.resourceAttributes.namespace", namespace, detail));
        }
    }
    errors
}

/// What the caller may do in a namespace.
fn rules(call: &Call, review: &Value) -> Result<Value> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(status::bad_request("no namespace on request").into());
    }
    let (rules, missing) = call.server.policy().rules(&call.user, Some(namespace));
    let (mut of_objects, mut of_paths) = (Vec::new(), Vec::new());
    for rule in rules {
        if rule.non_resource_urls.is_empty() {
            of_objects.push(json!(rule));
        } else {
            of_paths.push(json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls }));
        }
    }
    let mut answer =
        json!({ "resourceRules": of_objects, "nonResourceRules": of_paths, "incomplete": false });
    let mut problems = Vec::new();
    if node::name_of(&call.user).is_some() {
        problems.push("node authorizer does not support user rule resolution".to_string());
    }
    problems.extend(Some(missing).filter(|missing| !missing.is_empty()));
    if !problems.is_empty() {
        answer["incomplete"] = true.into();
        answer["evaluationError"] = problems.join(", ").into();
    }
    Ok(answer)
}

/// Whose token it is.
async fn token(call: &Call, review: &TokenReview) -> Value {
    let spec = &review.spec;
    match call.server.authenticate(&spec.token, &spec.audiences).await {
        Ok((user, audiences)) => {
            json!({ "authenticated": true, "user": info(&user), "audiences": audiences })
        }
        Err(why) => json!({ "user": {}, "error": why }),
    }
}
